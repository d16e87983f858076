//go:build services

package interop

import (
	"context"
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// pipelined is the address of a server like the one at addr that also takes what
// Dapr's component asks of MongoDB and FerretDB 1 cannot do: changes written as a
// pipeline, the time of the server in a condition, and an index that deletes. The
// first two are said in words that FerretDB has, of the last one it makes an
// index; whatever else is in a pipeline fails the test.
func pipelined(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	t.Cleanup(func() { end(); _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if err := handOn(ctx, client, addr); err != nil {
					t.Errorf("what a client asks of MongoDB: %v", err)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// handOn is one connection; an end of either side is no error.
func handOn(ctx context.Context, client net.Conn, addr string) error {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	defer server.Close()
	context.AfterFunc(ctx, func() { _ = client.Close() })
	go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
	for {
		head := make([]byte, 16)
		if _, err := io.ReadFull(client, head); err != nil {
			return nil
		}
		body := make([]byte, wire.LittleEndian.Uint32(head)-16)
		if _, err := io.ReadFull(client, body); err != nil {
			return nil
		}
		const msg = 2013
		if wire.LittleEndian.Uint32(head[12:]) == msg {
			if body, err = plainly(body); err != nil {
				return err
			}
		}
		wire.LittleEndian.PutUint32(head, uint32(16+len(body)))
		if _, err := server.Write(append(head, body...)); err != nil {
			return nil
		}
	}
}

// plainly says the body of a message without pipelines. It is flags and sections:
// the command, and lists of documents that stand beside it.
func plainly(body []byte) ([]byte, error) {
	flags, rest := body[:4], body[4:]
	var command bson.D
	lists := bson.D{}
	for len(rest) > 0 {
		kind, n := rest[0], int(wire.LittleEndian.Uint32(rest[1:]))
		section := rest[1 : 1+n]
		rest = rest[1+n:]
		if kind == 0 {
			if err := bson.Unmarshal(section, &command); err != nil {
				return nil, err
			}
			continue
		}
		name, docs, _ := strings.Cut(string(section[4:]), "\x00")
		all := bson.A{}
		for docs != "" {
			n := wire.LittleEndian.Uint32([]byte(docs))
			var doc bson.D
			if err := bson.Unmarshal([]byte(docs[:n]), &doc); err != nil {
				return nil, err
			}
			all, docs = append(all, doc), docs[n:]
		}
		lists = append(lists, bson.E{Key: name, Value: all})
	}
	said, err := plain(append(command, lists...), time.Now())
	if err != nil {
		return nil, err
	}
	doc, err := bson.Marshal(said)
	return append(append(flags[:4:4], 0), doc...), err
}

// plain says one value of a command plainly, and what is in it.
func plain(v any, now time.Time) (any, error) {
	switch v := v.(type) {
	case bson.D:
		out := bson.D{}
		for _, e := range v {
			stages, isPipeline := e.Value.(bson.A)
			var err error
			switch {
			case e.Key == "expireAfterSeconds": // of an index; nobody reads what has expired
				continue
			case e.Key == "u" && isPipeline:
				e.Value, err = changes(stages, now)
			case e.Key == "$expr":
				e, err = condition(e.Value, now)
			default:
				e.Value, err = plain(e.Value, now)
			}
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		return out, nil
	case bson.A:
		for i := range v {
			var err error
			if v[i], err = plain(v[i], now); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// changes are the fields that the stages of a pipeline set, the later ones last.
func changes(stages bson.A, now time.Time) (bson.D, error) {
	set := bson.D{}
	for _, s := range stages {
		stage, ok := s.(bson.D)
		if !ok || len(stage) != 1 || stage[0].Key != "$set" && stage[0].Key != "$addFields" {
			return nil, fmt.Errorf("unknown stage %v", s)
		}
		fields, _ := stage[0].Value.(bson.D)
		for _, f := range fields {
			if f.Key == "_id" { // the filter's
				continue
			}
			if sum, ok := f.Value.(bson.D); ok && len(sum) == 1 && sum[0].Key == "$add" {
				of, _ := sum[0].Value.(bson.A)
				ms, ok := number(of)
				if !ok {
					return nil, fmt.Errorf("unknown sum %v", of)
				}
				f.Value = primitive.NewDateTimeFromTime(now.Add(time.Duration(ms) * time.Millisecond))
			}
			if err := literal(f.Value); err != nil {
				return nil, err
			}
			set = append(set, f)
		}
	}
	return bson.D{{Key: "$set", Value: set}}, nil
}

// number is the n of ["$$NOW", n].
func number(of bson.A) (int64, bool) {
	if len(of) != 2 || of[0] != "$$NOW" {
		return 0, false
	}
	switch n := of[1].(type) {
	case int32:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// literal refuses what a pipeline would work out.
func literal(v any) error {
	var err error
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "$") {
			err = fmt.Errorf("%q names a field", v)
		}
	case bson.D:
		for _, e := range v {
			err = errors.Join(err, literal(e.Key), literal(e.Value))
		}
	case bson.A:
		for _, e := range v {
			err = errors.Join(err, literal(e))
		}
	}
	return err
}

// condition is the one that Dapr's component knows: not expired.
func condition(v any, now time.Time) (bson.E, error) {
	text, err := bson.MarshalExtJSON(v, false, false)
	const want = `{"$or":[{"$eq":[{"$ifNull":["$_ttl",null]},null]},{"$gte":["$_ttl","$$NOW"]}]}`
	if err != nil || string(text) != want {
		return bson.E{}, fmt.Errorf("unknown condition %s, %v", text, err)
	}
	return bson.E{Key: "$or", Value: bson.A{
		bson.D{{Key: "_ttl", Value: nil}},
		bson.D{{Key: "_ttl", Value: bson.D{{Key: "$gte", Value: primitive.NewDateTimeFromTime(now)}}}},
	}}, nil
}

// TestStateDocuments compares the documents that Dapr's component makes with
// those in the testdata of ours; -update writes them down.
func TestStateDocuments(t *testing.T) {
	addr := os.Getenv("PENSTOCK_TEST_MONGODB")
	if addr == "" {
		t.Fatal("this test needs mongodb: run it through make test-services (docs/testing.md)")
	}
	all := keepers()
	p := &pair{t: t, keeper: all[slices.IndexFunc(all, func(k keeper) bool { return k.name == "mongodb" })]}
	collection := fmt.Sprintf("t%x", rand.Uint64())
	p.startStock(p.options(t, addr, collection))
	p.setItems("2000000000")
	text := strings.Join(dumpMongoDB(t, addr, collection), "\n") + "\n"
	const path = "../../state/mongodb/testdata/dapr-1.18.golden"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := regexp.MustCompile(`"_etag":"[0-9a-f-]{36}"|"\$numberLong":"\d{12,}"`) // ETags and times
	if got, want := own.ReplaceAllString(text, "*"), own.ReplaceAllString(string(golden), "*"); got != want {
		t.Errorf("not in %s, -update writes it anew:\n%s", path, got)
	}
}

// dumpMongoDB writes down the documents of a collection, one a line.
func dumpMongoDB(t *testing.T, addr, collection string) (out []string) {
	t.Helper()
	client, err := mongo.Connect(t.Context(), options.Client().ApplyURI("mongodb://"+addr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) }()
	found, err := client.Database("daprStore").Collection(collection).Find(t.Context(), bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	for found.Next(t.Context()) {
		text, err := bson.MarshalExtJSON(found.Current, true, false)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
