package sdk

import (
	"testing"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const stateYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1, metadata: []}
`

func TestState(t *testing.T) {
	t.Parallel()
	c := sidecar(t, overGRPC, 0, stateYAML).client()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.SaveState(ctx, "statestore", "a", []byte("one"), map[string]string{"ttlInSeconds": "100"}))
	must(c.SaveBulkState(ctx, "statestore", &client.SetStateItem{Key: "b", Value: []byte("two")}, &client.SetStateItem{Key: "c", Value: []byte("3")}))
	a, err := c.GetState(ctx, "statestore", "a", nil)
	must(err)
	if string(a.Value) != "one" || a.Etag == "" || a.Metadata["ttlExpireTime"] == "" {
		t.Errorf("got %+v", a)
	}
	if none, err := c.GetState(ctx, "statestore", "never", nil); err != nil || len(none.Value) != 0 || none.Etag != "" {
		t.Errorf("got %+v, %v", none, err)
	}
	many, err := c.GetBulkState(ctx, "statestore", []string{"a", "never", "b"}, nil, 2)
	must(err)
	if len(many) != 3 || string(many[0].Value) != "one" || len(many[1].Value) != 0 || string(many[2].Value) != "two" {
		t.Errorf("got %+v", many)
	}
	must(c.ExecuteStateTransaction(ctx, "statestore", nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("4")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	}))
	must(c.DeleteState(ctx, "statestore", "c", nil))
	must(c.DeleteBulkState(ctx, "statestore", []string{"d", "never"}, nil))
	for _, key := range []string{"b", "c", "d"} {
		if it, err := c.GetState(ctx, "statestore", key, nil); err != nil || len(it.Value) != 0 {
			t.Errorf("%s is still there: %+v, %v", key, it, err)
		}
	}
}

func TestStateWithETags(t *testing.T) {
	t.Parallel()
	c := sidecar(t, overGRPC, 0, stateYAML).client()
	ctx := t.Context()
	first := client.WithConcurrency(client.StateConcurrencyFirstWrite)
	if err := c.SaveState(ctx, "statestore", "a", []byte("1"), nil, first); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveState(ctx, "statestore", "a", []byte("2"), nil, first); status.Code(err) != codes.Aborted {
		t.Errorf("second first write: %v", err)
	}
	it, err := c.GetStateWithConsistency(ctx, "statestore", "a", nil, client.StateConsistencyStrong)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SaveStateWithETag(ctx, "statestore", "a", []byte("3"), it.Etag, nil); err != nil {
		t.Error(err)
	}
	if err := c.SaveStateWithETag(ctx, "statestore", "a", []byte("4"), it.Etag, nil); status.Code(err) != codes.Aborted {
		t.Errorf("save with an old ETag: %v", err)
	}
	if err := c.DeleteStateWithETag(ctx, "statestore", "a", &client.ETag{Value: it.Etag}, nil, nil); status.Code(err) != codes.Aborted {
		t.Errorf("delete with an old ETag: %v", err)
	}
	if _, err := c.GetState(ctx, "nowhere", "a", nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown store: %v", err)
	}
}
