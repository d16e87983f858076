//go:build services

package mongodb

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/services"
)

// captured are the documents that Dapr's component made of seven items, one a
// line, as TestStateDocuments of test/interop wrote them down.
//
//go:embed testdata/dapr-1.18.golden
var captured string

// capturedItems are what was saved, as it is given back.
func capturedItems() map[string]string {
	return map[string]string{
		"shop||object": `{"a":1,"b":"<x>"}`, "shop||text": `"plain \"quoted\" ✓"`,
		"shop||json bytes": `{"a": 1}`, "shop||number": "5", "shop||null": "null", "shop||ttl": "true", "shop||o'clock": "12.5",
	}
}

// own is what no two documents share: ETags and times.
var own = regexp.MustCompile(`"_etag":"[0-9a-f-]{36}"|{"\$date":"[^"]+"}`)

// documents are those of a collection, by their keys, numbers as JSON has them.
// The order of their fields is the server's, and nobody's concern.
func documents(t *testing.T, s *store) (out []string) {
	t.Helper()
	found, err := s.items.Find(t.Context(), bson.D{}, mongooptions.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	for found.Next(t.Context()) {
		var doc bson.D
		if err := found.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(doc, func(a, b bson.E) int { return strings.Compare(a.Key, b.Key) })
		text, err := bson.MarshalExtJSON(doc, false, false)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, own.ReplaceAllString(string(text), "*"))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// withDaprs is a store of the captured documents.
func withDaprs(t *testing.T, addr string) *store {
	t.Helper()
	s := opened(t, addr)
	for line := range strings.Lines(captured) {
		var doc bson.D
		if err := bson.UnmarshalExtJSON([]byte(line), true, &doc); err != nil {
			t.Fatal(err)
		}
		if _, err := s.items.InsertOne(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestSameAsDaprs saves what Dapr's component had saved: the documents are the
// same, but for a number's type, which JSON does not tell.
func TestSameAsDaprs(t *testing.T) {
	addr := services.Need(t, "mongodb")
	ours := opened(t, addr)
	var changes []state.Change
	for key, value := range capturedItems() {
		c := state.Change{Key: key, Value: []byte(value), Binary: strings.HasSuffix(key, "bytes")}
		if key == "shop||ttl" {
			c.TTL = time.Hour
		}
		changes = append(changes, c)
	}
	if err := ours.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(documents(t, withDaprs(t, addr)), documents(t, ours)); diff != "" {
		t.Errorf("documents (-Dapr's +ours)\n%s", diff)
	}
}

// TestReadsDaprsDocuments reads what Dapr's component wrote, and changes it with
// the ETags found there.
func TestReadsDaprsDocuments(t *testing.T) {
	s, want := withDaprs(t, services.Need(t, "mongodb")), capturedItems()
	for key, value := range want {
		items, err := s.Get(t.Context(), []string{key}, state.Read{})
		if err != nil || !items[0].Found || string(items[0].Value) != value || !strings.Contains(captured, items[0].ETag) || items[0].ETag == "" {
			t.Errorf("%s: %+v, %v, want %q", key, items, err, value)
			continue
		}
		if expires := items[0].Expires; (key == "shop||ttl") != (expires.Year() > 2080) {
			t.Errorf("%s expires at %v", key, expires)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: key, Value: []byte("1"), ETag: &items[0].ETag}}); err != nil {
			t.Errorf("%s: save with Dapr's ETag: %v", key, err)
		}
	}
	keys, _, err := s.Keys(t.Context(), "shop||", "", 100)
	if err != nil || len(keys) != len(want) {
		t.Errorf("keys %q, %v", keys, err)
	}
}
