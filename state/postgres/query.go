package postgres

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// searchable is a store whose table can look into values.
type searchable struct{ *store }

// most is how many items a page has when nobody says.
const most = 1000

// Query implements state.Querier. The token is how many items came before.
// Whatever the query says reaches the server as a parameter, never as SQL.
func (s searchable) Query(ctx context.Context, q state.Query, _ map[string]string) (state.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	skip := 0
	if q.Token != "" {
		n, err := strconv.Atoi(q.Token)
		if err != nil || n < 0 {
			return state.Page{}, fault.New(fault.Invalid, "query: the token is not one of this store's")
		}
		skip = n
	}
	limit := q.Limit
	if limit <= 0 {
		limit = most
	}
	text, args, err := s.l.selection(q)
	if err != nil {
		return state.Page{}, err
	}
	args = append(args, limit+1, skip)
	text += " LIMIT $" + strconv.Itoa(len(args)-1) + " OFFSET $" + strconv.Itoa(len(args))
	rows, err := s.db.Pool().Query(ctx, text, args...)
	if err != nil {
		return state.Page{}, client.Classify(err)
	}
	defer rows.Close()
	var page state.Page
	for rows.Next() {
		key, it, err := scan(rows)
		if err != nil {
			return state.Page{}, client.Classify(err)
		}
		if len(page.Keys) == limit {
			page.Token = strconv.Itoa(skip + limit)
			break
		}
		page.Keys, page.Items = append(page.Keys, key), append(page.Items, it)
	}
	return page, client.Classify(rows.Err())
}

// selection is the query without its page.
func (l layout) selection(q state.Query) (text string, args []any, err error) {
	var b builder
	b.WriteString("SELECT " + l.columns + " FROM " + l.table + " WHERE " + l.live)
	if q.Filter != nil {
		b.WriteString(" AND ")
		if err := b.filter(*q.Filter); err != nil {
			return "", nil, err
		}
	}
	b.WriteString(" ORDER BY ")
	for _, o := range q.Sort {
		b.WriteString(b.field(o.Path))
		if o.Descending {
			b.WriteString(" DESC")
		}
		b.WriteString(", ")
	}
	b.WriteString("key") // pages need one order
	return b.String(), b.args, nil
}

// builder writes SQL with parameters.
type builder struct {
	strings.Builder
	args []any
}

// arg adds a parameter and returns its place.
func (b *builder) arg(v any) string {
	b.args = append(b.args, v)
	return "$" + strconv.Itoa(len(b.args))
}

// field is the part of a value that a path leads to; NULL when there is none.
func (b *builder) field(path string) string {
	return "(value #> " + b.arg(strings.Split(path, ".")) + "::text[])"
}

func (b *builder) filter(f state.Filter) error {
	if f.Op == "AND" || f.Op == "OR" {
		if len(f.Filters) == 0 {
			return fault.New(fault.Invalid, "query: %s needs at least one condition", f.Op)
		}
		for i, sub := range f.Filters {
			b.WriteString([]string{" " + f.Op + " ", "("}[map[bool]int{true: 1}[i == 0]])
			if err := b.filter(sub); err != nil {
				return err
			}
		}
		b.WriteString(")")
		return nil
	}
	signs := map[string]string{"EQ": "=", "NEQ": "<>", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<=", "IN": "IN"}
	sign, ok := signs[f.Op]
	if !ok || len(f.Values) == 0 || slices.ContainsFunc(f.Values, func(v json.RawMessage) bool { return !json.Valid(v) }) {
		return fault.New(fault.Invalid, "query: the condition %.20q is not one that this store knows", f.Op)
	}
	field := b.field(f.Path)
	switch f.Op {
	case "IN":
		for i, v := range f.Values {
			b.WriteString([]string{", ", field + " IN ("}[map[bool]int{true: 1}[i == 0]] + b.arg(string(v)) + "::jsonb")
		}
		b.WriteString(")")
	case "EQ", "NEQ":
		b.WriteString(field + " " + sign + " " + b.arg(string(f.Values[0])) + "::jsonb")
	default: // values of different types have an order of their own that nobody means
		v := b.arg(string(f.Values[0])) + "::jsonb"
		b.WriteString("(jsonb_typeof(" + field + ") = jsonb_typeof(" + v + ") AND " + field + " " + sign + " " + v + ")")
	}
	return nil
}
