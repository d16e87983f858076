package state

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Limits of a query.
const (
	maxQueryDepth = 16
	maxQueryParts = 1000 // conditions and values together
)

// Errors of queries that callers tell apart.
var (
	// ErrNoQueries: the store cannot search its values.
	ErrNoQueries = fault.New(fault.Invalid, "the store cannot search its values")
	// ErrEncrypted: nobody but us can read the values.
	ErrEncrypted = fault.New(fault.Invalid, "the values of the store are encrypted and cannot be searched")
)

// Query returns a page of the items whose JSON value satisfies q. As under Dapr
// the key prefix plays no part: items of every app in the store are looked at,
// and the part of a key up to its prefix is left out. [ErrNoQueries] when the
// store cannot, [ErrEncrypted] when its values are encrypted; other kinds from
// the store.
func (s *Store) Query(ctx context.Context, q Query, metadata map[string]string) (page Page, err error) {
	if s.cipher != nil {
		return Page{}, fault.Wrap(ErrEncrypted, "query %s", s.name)
	}
	began := s.calls.Begin()
	ctx, span := s.call(ctx, "query")
	defer func() {
		span.Done(err)
		s.calls.Done("query", began, err)
	}()
	err = s.do(ctx, func(ctx context.Context, d Driver) (err error) {
		querier, ok := d.(Querier)
		if !ok {
			return ErrNoQueries
		}
		page, err = querier.Query(ctx, q, metadata)
		return err
	})
	if err != nil {
		return Page{}, fault.Wrap(s.instance.Hide(err), "query %s", s.name)
	}
	for i, key := range page.Keys {
		if at := strings.LastIndex(key, separator); at >= 0 {
			page.Keys[i] = key[at+len(separator):]
		}
		page.Items[i].Err = s.instance.Hide(page.Items[i].Err)
	}
	return page, nil
}

// ParseQuery reads a query in JSON, as Dapr's state query API has it. Kind Invalid
// for what is none, with the place.
func ParseQuery(text []byte) (Query, error) {
	var in struct {
		Filter map[string]json.RawMessage `json:"filter"`
		Sort   []struct {
			Key   string `json:"key"`
			Order string `json:"order"`
		} `json:"sort"`
		Page struct {
			Limit int    `json:"limit"`
			Token string `json:"token"`
		} `json:"page"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return Query{}, fault.New(fault.Invalid, "read query: it is not the JSON of one: %w", err)
	}
	if in.Page.Limit < 0 {
		return Query{}, fault.New(fault.Invalid, "read query: page.limit must not be negative")
	}
	q := Query{Limit: in.Page.Limit, Token: in.Page.Token}
	if len(in.Filter) > 0 {
		parts := maxQueryParts
		f, err := filterOf(in.Filter, "filter", maxQueryDepth, &parts)
		if err != nil {
			return Query{}, err
		}
		q.Filter = &f
	}
	for _, o := range in.Sort {
		descending := strings.EqualFold(o.Order, "DESC")
		if o.Key == "" || !descending && o.Order != "" && !strings.EqualFold(o.Order, "ASC") {
			return Query{}, fault.New(fault.Invalid, "read query: sort needs a key, and order ASC or DESC")
		}
		q.Sort = append(q.Sort, Order{Path: o.Key, Descending: descending})
	}
	return q, nil
}

// filterOf reads an object with one operator. Parts is what is left of the most
// that a query may have.
func filterOf(in map[string]json.RawMessage, place string, depth int, parts *int) (Filter, error) {
	wrong := func(format string, args ...any) (Filter, error) {
		return Filter{}, fault.New(fault.Invalid, "read query: "+short(place)+": "+format, args...)
	}
	if *parts--; depth == 0 || *parts < 0 {
		return wrong("the query is too large: at most %d levels, and %d conditions and values", maxQueryDepth, maxQueryParts)
	}
	if len(in) != 1 {
		return wrong("want one operator, not %d", len(in))
	}
	op, raw := only(in)
	switch op {
	case "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN":
		return condition(op, raw, wrong, parts)
	case "AND", "OR":
	default:
		return wrong("unknown operator %q; there are EQ, NEQ, GT, GTE, LT, LTE, IN, AND and OR", short(op))
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return wrong("%s needs a list of conditions", op)
	}
	f := Filter{Op: op}
	for _, item := range list {
		sub, err := filterOf(item, place+"."+op, depth-1, parts)
		if err != nil {
			return Filter{}, err
		}
		f.Filters = append(f.Filters, sub)
	}
	return f, nil
}

// only is the one member of an object.
func only(in map[string]json.RawMessage) (name string, value json.RawMessage) {
	for name, value = range in {
		break
	}
	return name, value
}

// condition reads what one path is compared with.
func condition(op string, raw json.RawMessage, wrong func(string, ...any) (Filter, error), parts *int) (Filter, error) {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(raw, &in); err != nil || len(in) != 1 {
		return wrong("%s needs an object with one path and what to compare with", op)
	}
	path, value := only(in)
	if path == "" {
		return wrong("%s has an empty path", op)
	}
	f := Filter{Op: op, Path: path, Values: []json.RawMessage{value}}
	if op == "IN" {
		if err := json.Unmarshal(value, &f.Values); err != nil || len(f.Values) == 0 {
			return wrong("IN needs a list of values")
		}
	}
	if *parts -= len(f.Values); *parts < 0 {
		return wrong("the query is too large: at most %d conditions and values", maxQueryParts)
	}
	if slices.ContainsFunc(f.Values, func(v json.RawMessage) bool { v = bytes.TrimSpace(v); return v[0] == '{' || v[0] == '[' }) {
		return wrong("%s compares with texts, numbers, true, false and null only", op)
	}
	return f, nil
}
