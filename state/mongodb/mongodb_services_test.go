//go:build services

package mongodb

import (
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr, collection := services.Need(t, "mongodb"), conform.Unique(t)
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"host": addr, "collectionName": collection, "operationTimeout": "30s"}
		},
		Wrong: map[string]map[string]string{
			"host":             {"host": ""},
			"databaseName":     {"databaseName": "a.b"},
			"collectionName":   {"collectionName": "a$"},
			"writeconcern":     {"writeconcern": "x"},
			"readconcern":      {"readconcern": "x"},
			"operationTimeout": {"operationTimeout": "0"},
			"connectionString": {"connectionString": "localhost"},
		},
	})
}

func opened(t *testing.T, addr string) *store {
	t.Helper()
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items("host", addr, "collectionName", conform.Unique(t), "operationTimeout", "30s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*store)
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round.
func TestLayout(t *testing.T) {
	s, ctx := opened(t, services.Need(t, "mongodb")), t.Context()
	_, err := s.items.InsertOne(ctx, bson.D{
		{Key: "_id", Value: "app||theirs"}, {Key: "value", Value: bson.D{{Key: "a", Value: 1.0}}}, {Key: "_etag", Value: "e"}, {Key: "_ttl", Value: nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, []string{"app||theirs"}, state.Read{})
	if err != nil || string(got[0].Value) != `{"a":1.0}` || got[0].ETag != "e" {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(ctx, []state.Change{{Key: "app||ours", Value: []byte(`{"a":1}`), TTL: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Value bson.D
		ETag  string    `bson:"_etag"`
		TTL   time.Time `bson:"_ttl"`
	}
	if err := s.items.FindOne(ctx, bson.D{{Key: "_id", Value: "app||ours"}}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Value) != 1 || doc.Value[0].Value != int64(1) || len(doc.ETag) != 36 || time.Until(doc.TTL) < 50*time.Minute {
		t.Errorf("wrote %+v", doc)
	}
}

// TestAsked: FerretDB has no transactions, and no index that deletes what has
// expired; MongoDB as a replica set has both. Either is found out.
func TestAsked(t *testing.T) {
	s := opened(t, services.Need(t, "mongodb"))
	hello, err := s.items.Database().RunCommand(t.Context(), bson.D{{Key: "hello", Value: 1}}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	_, err = hello.LookupErr("setName")
	replicas := err == nil
	if s.Features().NoTransactions == replicas || s.sweeps == replicas {
		t.Errorf("replica set: %v, transactions: %v, sweeps: %v", replicas, !s.Features().NoTransactions, s.sweeps)
	}
}

// TestExpired: what has expired is gone for conditions too, and a sweep deletes
// it.
func TestExpired(t *testing.T) {
	s, ctx := opened(t, services.Need(t, "mongodb")), t.Context()
	past := time.Now().Add(-time.Hour)
	for _, id := range []string{"a", "b"} {
		if _, err := s.items.InsertOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: "value", Value: 1}, {Key: "_etag", Value: "e"}, {Key: "_ttl", Value: past}}); err != nil {
			t.Fatal(err)
		}
	}
	etag := "e"
	err := s.Apply(ctx, []state.Change{{Key: "a", Value: []byte("2"), ETag: &etag}})
	if fault.KindOf(err) != fault.Conflict {
		t.Errorf("save with the ETag of what has expired: %v", err)
	}
	if err := s.Apply(ctx, []state.Change{{Key: "a", Value: []byte("2"), FirstWrite: true}}); err != nil {
		t.Errorf("first write over what has expired: %v", err)
	}
	if err := s.sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := s.items.CountDocuments(ctx, bson.D{}); err != nil || n != 1 {
		t.Errorf("%d documents are left, want one (%v)", n, err)
	}
}

func TestServerGoneAndBack(t *testing.T) {
	server := services.Start(t, "mongodb")
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items("host", server.Addr, "operationTimeout", "3s", "password", "geheim", "params", "?retryWrites=false"))
	if err != nil {
		t.Fatal(err)
	}
	s := d.(*store)
	t.Cleanup(func() { _ = s.Close(context.WithoutCancel(t.Context())) })
	save := []state.Change{{Key: "a", Value: []byte("1")}}
	if err := s.Apply(t.Context(), save); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), save); !fault.Retriable(err) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("save without a server: %v, want an error that is tried again", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := s.Get(t.Context(), []string{"a"}, state.Read{})
		if err == nil && got[0].Found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is back, and a read still fails: %+v, %v", got, err)
		}
	}
}
