package mongodb

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, good := range [][]config.Item{
		items("host", "a:1,b:2"),
		items("server", "x.example"),
		items("connectionString", "mongodb://u:p@a:1/?replicaSet=r"),
		items("connectionString", "mongodb+srv://x.example"),
		items("host", "a:1", "username", "u", "password", "p@/:", "params", "?tls=true", "writeconcern", "2", "readconcern", "majority"),
	} {
		if ps := Component.Check(good); len(ps) > 0 {
			t.Errorf("%v: %v", good, ps)
		}
	}
	for _, bad := range [][]config.Item{
		items(),
		items("host", "a:1", "server", "b"),
		items("host", "a:1", "params", "?tls=perhaps"),
		items("connectionString", "localhost"),
		items("connectionString", "mongodb://"),
		items("host", "a:1", "databaseName", "a.b"),
		items("host", "a:1", "collectionName", "a$b"),
		items("host", "a:1", "writeconcern", "some"),
		items("host", "a:1", "writeconcern", "0"),
		items("host", "a:1", "readconcern", "some"),
		items("host", "a:1", "operationTimeout", "0"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`{"b":1,"a":[true,null,"x",{"c":1.5}]}`: bson.D{{Key: "b", Value: int64(1)}, {Key: "a", Value: bson.A{true, nil, "x", bson.D{{Key: "c", Value: 1.5}}}}},
		`[]`:                                    bson.A{},
		`12`:                                    int64(12),
		`-12.5e3`:                               -12500.0,
		`null`:                                  nil,
		`"text"`:                                `"text"`,
		`12345678901234567890`:                  `12345678901234567890`,
		`0.1234567890123456789`:                 `0.1234567890123456789`,
		`{"a":1,"a":2}`:                         `{"a":1,"a":2}`,
		`{"$date":1}`:                           `{"$date":1}`,
		`{"a":{"b.c":1}}`:                       `{"a":{"b.c":1}}`,
		`-0`:                                    `-0`,
		`1e400`:                                 `1e400`,
		`{"a":`:                                 `{"a":`,
		`1 2`:                                   `1 2`,
	} {
		if diff := cmp.Diff(want, encode(&state.Change{Value: []byte(text)})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
	if got := encode(&state.Change{Value: []byte(`{"a":1}`), Binary: true}); got != `{"a":1}` {
		t.Errorf("bytes that are text are %v", got)
	}
	if got, ok := encode(&state.Change{Value: []byte{0xff}, Binary: true}).(bson.Binary); !ok || string(got.Data) != "\xff" {
		t.Errorf("bytes are %v", got)
	}
}

// TestDecode reads what Dapr's component writes.
func TestDecode(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000).UTC()
	for name, c := range map[string]struct {
		doc  bson.D
		want state.Item
	}{
		"text":     {bson.D{{Key: "value", Value: `{"a":1}`}, {Key: "_etag", Value: "e"}, {Key: "_ttl", Value: nil}}, state.Item{Found: true, Value: []byte(`{"a":1}`), ETag: "e"}},
		"document": {bson.D{{Key: "value", Value: bson.D{{Key: "a", Value: 1.5}, {Key: "b", Value: bson.A{int32(1), "x"}}}}}, state.Item{Found: true, Value: []byte(`{"a":1.5,"b":[1,"x"]}`)}},
		"number":   {bson.D{{Key: "value", Value: 5.0}}, state.Item{Found: true, Value: []byte(`5.0`)}},
		"nothing":  {bson.D{{Key: "value", Value: nil}}, state.Item{Found: true, Value: []byte(`null`)}},
		"to go":    {bson.D{{Key: "value", Value: "1"}, {Key: "_ttl", Value: now.Add(time.Second)}}, state.Item{Found: true, Value: []byte("1"), Expires: now.Add(time.Second)}},
		"gone":     {bson.D{{Key: "value", Value: "1"}, {Key: "_ttl", Value: now}}, state.Item{}},
	} {
		raw, err := bson.Marshal(append(bson.D{{Key: "_id", Value: "k"}}, c.doc...))
		if err != nil {
			t.Fatal(err)
		}
		key, got := decode(raw, now)
		if key != "k" || got.Found != c.want.Found || string(got.Value) != string(c.want.Value) || got.ETag != c.want.ETag || !got.Expires.Equal(c.want.Expires) || got.Err != nil {
			t.Errorf("%s: %q, %+v, want %+v", name, key, got, c.want)
		}
	}
	if fault.KindOf(classify(fault.New(fault.Conflict, "x"))) != fault.Conflict {
		t.Error("a kind is lost")
	}
}
