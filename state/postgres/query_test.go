package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/state"
)

// TestNothingOfAQueryIsSQL: whatever stands in a query becomes a parameter.
func TestNothingOfAQueryIsSQL(t *testing.T) {
	t.Parallel()
	l := layoutOf("v1", options{TableName: "public.State", MetadataTableName: "notes"})
	const evil = `EVIL'"); DROP TABLE state; --`
	quotedEvil, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	one := state.Filter{Op: "EQ", Path: evil + ".b", Values: []json.RawMessage{quotedEvil}}
	many := one
	many.Op = "IN"
	f := state.Filter{Op: "OR", Filters: []state.Filter{one, {Op: "AND", Filters: []state.Filter{many, {Op: "GT", Path: evil, Values: one.Values}}}}}
	text, args, err := l.selection(state.Query{Filter: &f, Sort: []state.Order{{Path: evil, Descending: true}}})
	if err != nil || strings.Contains(text, "EVIL") || !strings.Contains(text, ` FROM "public"."state" WHERE `) {
		t.Errorf("%s, %v", text, err)
	}
	if want := strings.Count(text, "$"); strings.Count(text, "$"+fmt.Sprint(len(args))) == 0 || want < len(args) {
		t.Errorf("%d parameters for %s", len(args), text)
	}
	for _, a := range args {
		if !strings.Contains(fmt.Sprint(a), "EVIL") {
			t.Errorf("the parameter %v comes from nowhere", a)
		}
	}
}
