//go:build services

package zookeeper

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr, root := services.Need(t, "zookeeper"), "/a/"+conform.Unique(t)
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"servers": addr, "sessionTimeout": "10s", "keyPrefixPath": root}
		},
		ReusesETags: true, // the version of a node begins with 0, as under Dapr
		Wrong: map[string]map[string]string{
			"sessionTimeout": {"sessionTimeout": "0"},
			"maxBufferSize":  {"maxBufferSize": "0"},
			"keyPrefixPath":  {"keyPrefixPath": "a/.."},
		},
	})
}

func opened(t *testing.T, pairs ...string) *store {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*store)
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round; at the root too.
func TestLayout(t *testing.T) {
	addr := services.Need(t, "zookeeper")
	for _, root := range []string{"", "/" + conform.Unique(t)} {
		s, key := opened(t, "servers", addr, "keyPrefixPath", root), conform.Unique(t)+"||"
		if _, err := s.conn.Create(root+"/"+key+"theirs", []byte(`{"a":1}`), 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(t.Context(), []string{key + "theirs"}, state.Read{Parallel: 1})
		if err != nil || string(got[0].Value) != `{"a":1}` || got[0].ETag != "0" {
			t.Errorf("read %+v, %v", got, err)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: key + "ours", Value: []byte(`{"a":1}`)}}); err != nil {
			t.Fatal(err)
		}
		if value, _, err := s.conn.Get(root + "/" + key + "ours"); err != nil || string(value) != `{"a":1}` {
			t.Errorf("wrote %q, %v", value, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := opened(t, "servers", services.Need(t, "zookeeper"), "keyPrefixPath", conform.Unique(t))
	half := make([]byte, 600<<10)
	one := []state.Change{{Key: "a", Value: append(half, half...)}}
	two := []state.Change{{Key: "a", Value: half}, {Key: "b", Value: half}}
	if err := s.Apply(t.Context(), one); fault.KindOf(err) != fault.Invalid {
		t.Errorf("save of 1.2 MB: %v, want kind invalid", err)
	}
	if err := s.Transact(t.Context(), two); fault.KindOf(err) != fault.Invalid {
		t.Errorf("transaction of 1.2 MB: %v, want kind invalid", err)
	}
	if err := s.Apply(t.Context(), two); err != nil {
		t.Error(err)
	}
}

func TestServerGoneAndBack(t *testing.T) {
	server := services.Start(t, "zookeeper")
	s := opened(t, "servers", server.Addr, "keyPrefixPath", "p")
	save := []state.Change{{Key: "a", Value: []byte("1")}}
	if err := s.Apply(t.Context(), save); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), save); !fault.Retriable(err) {
		t.Errorf("save without a server: %v, want an error that is tried again", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		items, err := s.Get(t.Context(), []string{"a"}, state.Read{Strong: true, Parallel: 1})
		if err == nil && items[0].Found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is back, and a read still fails: %v, %v", items, err)
		}
	}
}
