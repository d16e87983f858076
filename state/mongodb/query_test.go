package mongodb

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// TestNothingOfAQueryIsAnOperator: names stand behind that of the value, and
// values are scalars.
func TestNothingOfAQueryIsAnOperator(t *testing.T) {
	t.Parallel()
	one := state.Filter{Op: "EQ", Path: "$where", Values: []json.RawMessage{json.RawMessage(`"$ne"`)}}
	f := state.Filter{Op: "OR", Filters: []state.Filter{one, {Op: "IN", Path: "$or", Values: one.Values}}}
	where, order, err := selection(state.Query{Filter: &f, Sort: []state.Order{{Path: "$natural"}, {Path: "$natural"}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := bson.MarshalExtJSON(bson.D{{Key: "w", Value: where}, {Key: "o", Value: order}}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"value.$where":{"$eq":"$ne"}`, `"value.$or":{"$eq":"$ne"}`, `"o":{"value.$natural":1,"_id":1}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	raw := func(text string) []json.RawMessage { return []json.RawMessage{json.RawMessage(text)} }
	for _, f := range []state.Filter{
		{Op: "AND"},
		{Op: "EQ", Path: "a"},
		{Op: "IN", Path: "a"},
		{Op: "$where", Path: "a", Values: raw("1")},
		{Op: "EQ", Path: "a", Values: raw("{")},
		{Op: "EQ", Path: "a", Values: raw(`{"$ne": 1}`)},
		{Op: "EQ", Path: "a", Values: raw(`[1]`)},
		{Op: "EQ", Path: "a", Values: raw("12345678901234567890123")},
		{Op: "EQ", Path: "a\x00", Values: raw("1")},
		{Op: "EQ", Values: raw("1")},
		{Op: "OR", Filters: []state.Filter{{Op: "AND"}}},
	} {
		if _, _, err := selection(state.Query{Filter: &f}, time.Now()); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
