package grpc_test

import (
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const store = "statestore"

func TestState(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	ctx := t.Context()
	_, err := c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: store, States: []*commonv1.StateItem{
		{Key: "a", Value: []byte("\x00\xff")}, {Key: "b", Value: []byte(`1`), Metadata: map[string]string{"ttlInSeconds": "100"}},
	}})
	must(t, err)
	a, err := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: store, Key: "a"})
	must(t, err)
	if string(a.GetData()) != "\x00\xff" || a.GetEtag() == "" {
		t.Errorf("got %v", a)
	}
	many, err := c.GetBulkState(ctx, &rtv1.GetBulkStateRequest{StoreName: store, Keys: []string{"b", "never", "a"}})
	must(t, err)
	items := many.GetItems()
	if len(items) != 3 || string(items[0].GetData()) != "1" || items[0].GetMetadata()["ttlExpireTime"] == "" || items[1].GetEtag() != "" || items[2].GetKey() != "a" {
		t.Errorf("got %v", items)
	}
	_, err = c.ExecuteStateTransaction(ctx, &rtv1.ExecuteStateTransactionRequest{StoreName: store, Operations: []*rtv1.TransactionalStateOperation{
		{OperationType: "upsert", Request: &commonv1.StateItem{Key: "t", Value: []byte("x"), Etag: &commonv1.Etag{}}},
		{OperationType: "delete", Request: &commonv1.StateItem{Key: "b"}},
	}})
	must(t, err)
	_, err = c.DeleteState(ctx, &rtv1.DeleteStateRequest{StoreName: store, Key: "t"})
	must(t, err)
	_, err = c.DeleteBulkState(ctx, &rtv1.DeleteBulkStateRequest{StoreName: store, States: []*commonv1.StateItem{{Key: "a"}}})
	must(t, err)
	for _, key := range []string{"a", "b", "t", "never"} {
		got, err := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: store, Key: key})
		must(t, err)
		if len(got.GetData()) > 0 || got.GetEtag() != "" {
			t.Errorf("%s is there: %v", key, got)
		}
	}
}

func TestStateProblems(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	ctx := t.Context()
	save := func(it *commonv1.StateItem) error {
		_, err := c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: store, States: []*commonv1.StateItem{it}})
		return err
	}
	must(t, save(&commonv1.StateItem{Key: "a", Value: []byte("1")}))
	first := &commonv1.StateOptions{Concurrency: commonv1.StateOptions_CONCURRENCY_FIRST_WRITE}
	_, unknown := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: "other", Key: "a"})
	_, gone := c.DeleteState(ctx, &rtv1.DeleteStateRequest{StoreName: store, Key: "a", Etag: &commonv1.Etag{Value: "99"}})
	_, merge := c.ExecuteStateTransaction(ctx, &rtv1.ExecuteStateTransactionRequest{StoreName: store, Operations: []*rtv1.TransactionalStateOperation{
		{OperationType: "merge", Request: &commonv1.StateItem{Key: "a"}},
	}})
	for name, row := range map[string]struct {
		err  error
		want codes.Code
	}{
		"unknown store":  {unknown, codes.InvalidArgument},
		"empty key":      {save(&commonv1.StateItem{}), codes.InvalidArgument},
		"separator":      {save(&commonv1.StateItem{Key: "x||y"}), codes.InvalidArgument},
		"other ETag":     {save(&commonv1.StateItem{Key: "a", Etag: &commonv1.Etag{Value: "99"}}), codes.Aborted},
		"malformed ETag": {save(&commonv1.StateItem{Key: "a", Etag: &commonv1.Etag{Value: "x"}}), codes.InvalidArgument},
		"first write":    {save(&commonv1.StateItem{Key: "a", Options: first}), codes.Aborted},
		"delete":         {gone, codes.Aborted},
		"operation":      {merge, codes.Unimplemented},
	} {
		if got := status.Code(row.err); got != row.want {
			t.Errorf("%s: %v, want %v", name, row.err, row.want)
		}
	}
}

func TestQueryState(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	ask := func(store, query string) (*rtv1.QueryStateResponse, error) {
		return c.QueryStateAlpha1(t.Context(), &rtv1.QueryStateRequest{StoreName: store, Query: query})
	}
	got, err := ask("searchable", `{"filter": {"EQ": {"n": 1}}}`)
	must(t, err)
	if r := got.GetResults(); len(r) != 2 || r[0].GetKey() != "a" || string(r[0].GetData()) != `{"n":1}` || r[0].GetEtag() != "7" || r[1].GetError() != "damaged" || got.GetToken() != "2" {
		t.Errorf("got %v", got)
	}
	if got, err := ask("searchable", `{}`); err != nil || len(got.GetResults()) != 0 {
		t.Errorf("nothing found: %v, %v", got, err)
	}
	for query, want := range map[[2]string]codes.Code{
		{"searchable", `{"filter": {"EQ": {"broken": 1}}}`}: codes.Internal, {"searchable", `{`}: codes.InvalidArgument,
		{store, `{}`}: codes.Unimplemented, {"other", `{}`}: codes.InvalidArgument,
	} {
		if _, err := ask(query[0], query[1]); status.Code(err) != want {
			t.Errorf("%v: %v, want %v", query, err, want)
		}
	}
}
