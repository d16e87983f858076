package state

import (
	"context"
	"encoding/json"
)

// Querier is implemented by drivers that can search their values.
type Querier interface {
	// Query returns a page of the items whose JSON value satisfies the query.
	// Kind Invalid for a query that the store cannot answer.
	Query(ctx context.Context, q Query, metadata map[string]string) (Page, error)
}

// Query is what to look for, in the form of Dapr's state query API.
type Query struct {
	// Filter is nil when every item will do.
	Filter *Filter
	Sort   []Order
	// Limit is the most items of a page; 0: as many as there are, up to the
	// store's own limit.
	Limit int
	// Token is that of the page before; empty for the first.
	Token string
}

// Filter is a condition on a value.
type Filter struct {
	// Op is AND or OR, of Filters; or EQ, NEQ, GT, GTE, LT, LTE or IN, of Path.
	Op      string
	Filters []Filter
	// Path leads to a field of the value: "person.org".
	Path string
	// Values are scalars in JSON; one, but for IN.
	Values []json.RawMessage
}

// Order is one key to sort by.
type Order struct {
	Path       string
	Descending bool
}

// Page is one page of an answer.
type Page struct {
	Keys  []string // with their prefixes
	Items []Item   // one for each
	// Token asks for the next page; empty at the end.
	Token string
}
