//go:build services

package mongodb

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/services"
)

// people is a store with the items that the queries look for.
func people(t *testing.T) *store {
	t.Helper()
	s := opened(t, services.Need(t, "mongodb"))
	var changes []state.Change
	for key, value := range map[string]string{
		"1": `{"person": {"org": "Dev Ops", "id": 1036}, "city": "Seattle", "state": "WA", "vip": true}`,
		"2": `{"person": {"org": "Hardware", "id": 1028}, "city": "Portland", "state": "OR"}`,
		"3": `{"person": {"org": "Finance", "id": 1071}, "city": "Sacramento", "state": "CA", "vip": false}`,
		"4": `{"person": {"org": "Dev Ops", "id": 107}, "city": "San Francisco", "state": "CA", "vip": null}`,
		"5": `"text"`, "6": `{"person": "nobody", "o'k": 1}`,
	} {
		changes = append(changes, state.Change{Key: "shop||" + key, Value: []byte(value)})
	}
	changes = append(changes, state.Change{Key: "shop||7", Value: []byte(`{"state": "CA"}`), Binary: true})
	if err := s.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	_, err := s.items.InsertOne(t.Context(), bson.D{
		{Key: "_id", Value: "shop||8"}, {Key: "value", Value: bson.D{{Key: "state", Value: "CA"}}}, {Key: "_ttl", Value: time.Now().Add(-time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestQuery(t *testing.T) {
	s := people(t)
	for text, want := range map[string]string{
		`{"filter": {"EQ": {"state": "CA"}}}`:                                                           "3 4",
		`{"filter": {"NEQ": {"state": "CA"}}}`:                                                          "1 2",
		`{"filter": {"EQ": {"person.org": "Dev Ops"}}}`:                                                 "1 4",
		`{"filter": {"EQ": {"vip": true}}}`:                                                             "1",
		`{"filter": {"EQ": {"vip": null}}}`:                                                             "4",
		`{"filter": {"NEQ": {"vip": null}}}`:                                                            "1 3",
		`{"filter": {"IN": {"vip": [null, true]}}}`:                                                     "1 4",
		`{"filter": {"EQ": {"person.id": 1036}}}`:                                                       "1",
		`{"filter": {"EQ": {"person.id": "1036"}}}`:                                                     "",
		`{"filter": {"GT": {"person.id": 1030}}}`:                                                       "1 3",
		`{"filter": {"GTE": {"person.id": 1036.0}}}`:                                                    "1 3",
		`{"filter": {"LT": {"person.id": 1000}}}`:                                                       "4",
		`{"filter": {"LTE": {"person.id": 1028}}}`:                                                      "2 4",
		`{"filter": {"GT": {"city": "Sacramento"}}}`:                                                    "1 4",
		`{"filter": {"IN": {"state": ["CA", "WA", 5]}}}`:                                                "1 3 4",
		`{"filter": {"AND": [{"EQ": {"state": "CA"}}, {"EQ": {"person.org": "Dev Ops"}}]}}`:             "4",
		`{"filter": {"OR": [{"EQ": {"state": "OR"}}, {"AND": [{"EQ": {"vip": true}}]}]}}`:               "1 2",
		`{"filter": {"EQ": {"nowhere.at.all": 1}}}`:                                                     "",
		`{"filter": {"EQ": {"o'k": 1}}}`:                                                                "6",
		`{"filter": {"EQ": {"state": "$ne"}}}`:                                                          "",
		`{"filter": {"EXISTS": {"state": "CA"}}}`:                                                       "error",
		`{"filter": {"IN": {"state": ["CA", "WA", "OR"]}}, "sort": [{"key": "person.id"}]}`:             "4 2 1 3",
		`{"filter": {"IN": {"state": ["CA", "WA"]}}, "sort": [{"key": "person.org", "order": "DESC"}]}`: "3 1 4",
		`{}`: "1 2 3 4 5 6 7",
	} {
		q, err := state.ParseQuery([]byte(text))
		if err == nil {
			var page state.Page
			page, err = s.Query(t.Context(), q, nil)
			if got := strings.ReplaceAll(strings.Join(page.Keys, " "), "shop||", ""); err == nil && (got != want || len(page.Items) != len(page.Keys)) {
				t.Errorf("%s found %q, want %q", text, got, want)
			}
		}
		if (err != nil) != (want == "error") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestQueryPages: pages give every item once, in order, with its value and ETag.
func TestQueryPages(t *testing.T) {
	s := people(t)
	var got []string
	q := state.Query{Limit: 3}
	for range 10 {
		page, err := s.Query(t.Context(), q, nil)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(page.Items, func(it state.Item) bool { return it.ETag == "" || !it.Found || it.Err != nil || len(it.Value) == 0 }) {
			t.Errorf("%+v", page)
		}
		got = append(got, fmt.Sprint(page.Keys))
		if q.Token = page.Token; q.Token == "" {
			break
		}
	}
	want := []string{"[shop||1 shop||2 shop||3]", "[shop||4 shop||5 shop||6]", "[shop||7]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, token := range []string{"x", "-1"} {
		if _, err := s.Query(t.Context(), state.Query{Token: token}, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("token %q: %v", token, err)
		}
	}
}
