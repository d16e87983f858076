//go:build services

package tablestorage

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"

	"github.com/penstock-io/penstock/client/azure"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// account is the emulator's.
func account(t *testing.T) azure.Account {
	t.Helper()
	a, err := azure.ParseConnection(services.Need(t, "azurite"), azure.Table)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	a, table := account(t), conform.Unique(t)
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"accountName": a.Name, "accountKey": a.Key.Reveal(), "serviceURL": a.Endpoint, "tableName": table}
		},
		Wrong: map[string]map[string]string{
			"tableName":  {"tableName": "a-b"},
			"accountKey": {"accountKey": "%"},
		},
		MaxValue: 60 << 10,
	})
}

func opened(t *testing.T, pairs ...string) (*store, error) {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items(pairs...))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*store), nil
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round.
func TestLayout(t *testing.T) {
	a, table := account(t), conform.Unique(t)
	s, err := opened(t, "accountName", a.Name, "accountKey", a.Key.Reveal(), "serviceURL", a.Endpoint, "tableName", table)
	if err != nil {
		t.Fatal(err)
	}
	theirs := []byte(`{"PartitionKey":"app","RowKey":"theirs","Value":"{\"a\":1}"}`)
	if _, err := s.do(t.Context(), azure.Request{Method: http.MethodPost, Path: "/" + table, Body: theirs}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), []string{"app||theirs"}, state.Read{Parallel: 1})
	if err != nil || string(got[0].Value) != `{"a":1}` || got[0].ETag == "" {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "app||ours", Value: []byte(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	res, err := s.do(t.Context(), azure.Request{Method: http.MethodGet, Path: "/" + table + "(PartitionKey='app',RowKey='ours')"})
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(res.Body, &e); err != nil || e["Value"] != `{"a":1}` || e["Value@odata.type"] != nil {
		t.Errorf("wrote %s, %v", res.Body, err)
	}
}

func TestRefused(t *testing.T) {
	a := account(t)
	pairs := []string{"accountName", a.Name, "accountKey", key, "serviceURL", a.Endpoint, "tableName", conform.Unique(t)}
	if _, err := opened(t, pairs...); fault.KindOf(err) != fault.Denied {
		t.Errorf("open with a wrong key: %v, want kind denied", err)
	}
	pairs[3] = a.Key.Reveal()
	if _, err := opened(t, append(pairs, "skipCreateTable", "true")...); fault.KindOf(err) != fault.NotFound {
		t.Errorf("open of a table that is not there: %v, want kind not found", err)
	}
	s, err := opened(t, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "a||b", Value: make([]byte, 2<<20), Binary: true}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("save of 2 MiB: %v, want kind invalid", err)
	}
}
