package sdk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const lockYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.sqlite, version: v1, metadata: []}
`

func TestLocks(t *testing.T) {
	t.Parallel()
	c := sidecar(t, overGRPC, 0, lockYAML).client()
	ctx := t.Context()
	take := func(owner string) bool {
		t.Helper()
		got, err := c.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "file", LockOwner: owner, ExpiryInSeconds: 60})
		if err != nil {
			t.Fatal(err)
		}
		return got.Success
	}
	release := func(owner string) int32 {
		t.Helper()
		got, err := c.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "file", LockOwner: owner})
		if err != nil {
			t.Fatal(err)
		}
		return got.StatusCode
	}
	if first, second := take("ann"), take("bob"); !first || second {
		t.Errorf("ann %v, bob %v: want ann alone", first, second)
	}
	if got := release("bob"); got != 2 {
		t.Errorf("bob gives ann's lock back: %d, want 2 (belongs to others)", got)
	}
	if got := release("ann"); got != 0 {
		t.Errorf("ann gives her lock back: %d, want 0", got)
	}
	if got := release("ann"); got != 1 {
		t.Errorf("ann gives it back twice: %d, want 1 (is not there)", got)
	}
	if !take("bob") {
		t.Error("bob does not get the lock that is free")
	}
	_, err := c.TryLockAlpha1(ctx, "nowhere", &client.LockRequest{ResourceID: "file", LockOwner: "x", ExpiryInSeconds: 1})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown store: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "settings.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"colour":{"value":"blue","version":"1"},"size":"small"}`)
	c := sidecar(t, overGRPC, 0, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.file, version: v1, metadata: [{name: path, value: "`+file+`"}]}
`).client()
	one, err := c.GetConfigurationItem(t.Context(), "settings", "colour")
	if err != nil || one.Value != "blue" || one.Version != "1" {
		t.Fatalf("got %+v, %v", one, err)
	}
	all, err := c.GetConfigurationItems(t.Context(), "settings", []string{"colour", "size", "never"})
	if err != nil || len(all) != 2 || all["size"].Value != "small" {
		t.Fatalf("got %+v, %v", all, err)
	}
	changes := make(chan string, 100)
	id, err := c.SubscribeConfigurationItems(t.Context(), "settings", []string{"colour"}, func(_ string, items map[string]*client.ConfigurationItem) {
		for key, it := range items {
			changes <- key + "=" + it.Value
		}
	})
	if err != nil || id == "" {
		t.Fatalf("subscription %q, %v", id, err)
	}
	write(`{"colour":"green","size":"large"}`)
	if got := receive(t, changes, "the change"); got != "colour=green" {
		t.Errorf("told of %s", got)
	}
	if err := c.UnsubscribeConfigurationItems(t.Context(), "settings", id); err != nil {
		t.Error(err)
	}
	if err := c.UnsubscribeConfigurationItems(t.Context(), "settings", id); err == nil {
		t.Error("a subscription that has ended can be ended again")
	}
	if _, err := c.GetConfigurationItem(t.Context(), "nowhere", "colour"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("unknown store: %v", err)
	}
}
