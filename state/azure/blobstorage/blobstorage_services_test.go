//go:build services

package blobstorage

import (
	"context"
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

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	connection, container := services.Need(t, "azurite"), conform.Unique(t)
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"connectionString": connection, "containerName": container, "prefix": "a b/c"}
		},
		Wrong: map[string]map[string]string{
			"containerName":    {"containerName": "No"},
			"connectionString": {"connectionString": "AccountName=x"},
			"prefix":           {"prefix": "../x"},
		},
		Version: "v2",
	})
}

func opened(t *testing.T, pairs ...string) (*store, error) {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Version: "v2", Logger: slog.New(slog.DiscardHandler)}, items(pairs...))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*store), nil
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round.
func TestLayout(t *testing.T) {
	connection, container := services.Need(t, "azurite"), conform.Unique(t)
	account, err := azure.ParseConnection(connection, azure.Blob)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := azure.New(azure.Blob, account)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Close)
	s, err := opened(t, "connectionString", connection, "containerName", container)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bare.Do(t.Context(), azure.Request{
		Method: http.MethodPut, Path: "/" + container + "/app%7C%7Ctheirs/1", Body: []byte(`{"a":1}`), Header: http.Header{"X-Ms-Blob-Type": {"BlockBlob"}},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), []string{"app||theirs/1"}, state.Read{Parallel: 1})
	if err != nil || string(got[0].Value) != `{"a":1}` || got[0].ETag == "" {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "app||ours", Value: []byte(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	res, err := bare.Do(t.Context(), azure.Request{Method: http.MethodGet, Path: "/" + container + "/app%7C%7Cours"})
	if err != nil || string(res.Body) != `{"a":1}` || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("wrote %+v, %v", res, err)
	}
}

func TestRefused(t *testing.T) {
	account, err := azure.ParseConnection(services.Need(t, "azurite"), azure.Blob)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := account.Endpoint[:len(account.Endpoint)-len("/"+account.Name)]
	pairs := []string{"accountName", account.Name, "accountKey", key, "endpoint", endpoint, "containerName", conform.Unique(t)}
	if _, err := opened(t, pairs...); fault.KindOf(err) != fault.Denied {
		t.Errorf("open with a wrong key: %v, want kind denied", err)
	}
	pairs[3] = account.Key.Reveal()
	if _, err := opened(t, append(pairs, "disableEntityManagement", "true")...); fault.KindOf(err) != fault.NotFound {
		t.Errorf("open of a container that is not there: %v, want kind not found", err)
	}
	if _, err := opened(t, pairs...); err != nil {
		t.Error(err)
	}
}
