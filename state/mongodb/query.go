package mongodb

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// most is how many items a page has when nobody says.
const most = 1000

// Query implements state.Querier. The token is how many items came before.
// What a query says stands behind the name of the value, so that it cannot be an
// operator of MongoDB's.
func (s *store) Query(ctx context.Context, q state.Query, _ map[string]string) (state.Page, error) {
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
	now := time.Now()
	where, order, err := selection(q, now)
	if err != nil {
		return state.Page{}, err
	}
	found, err := s.items.Find(ctx, where, mongooptions.Find().SetSort(order).SetSkip(int64(skip)).SetLimit(int64(limit)+1))
	if err != nil {
		return state.Page{}, classify(err)
	}
	var page state.Page
	for n := 0; found.Next(ctx); n++ {
		if n == limit {
			page.Token = strconv.Itoa(skip + limit)
			break
		}
		key, it := decode(found.Current, now)
		page.Keys, page.Items = append(page.Keys, key), append(page.Items, it)
	}
	if err := errors.Join(found.Err(), found.Close(ctx)); err != nil {
		return state.Page{}, classify(err)
	}
	return page, nil
}

// selection is the query without its page.
func selection(q state.Query, now time.Time) (where, order bson.D, err error) {
	where = alive(now)
	if q.Filter != nil {
		c, err := condition(*q.Filter)
		if err != nil {
			return nil, nil, err
		}
		where = bson.D{{Key: "$and", Value: bson.A{where, c}}}
	}
	seen := map[string]bool{}
	for _, o := range q.Sort {
		name, err := field(o.Path)
		if err != nil {
			return nil, nil, err
		}
		if seen[name] { // the first says it all
			continue
		}
		seen[name] = true
		order = append(order, bson.E{Key: name, Value: map[bool]int{false: 1, true: -1}[o.Descending]})
	}
	return where, append(order, bson.E{Key: fieldID, Value: 1}), nil // pages need one order
}

// field is the name of a part of the value.
func field(path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", fault.New(fault.Invalid, "query: %.20q leads to no field", path)
	}
	return fieldValue + "." + path, nil
}

// condition is a filter in MongoDB's words.
func condition(f state.Filter) (bson.D, error) {
	var parts bson.A
	switch f.Op {
	case "AND", "OR":
		for _, sub := range f.Filters {
			c, err := condition(sub)
			if err != nil {
				return nil, err
			}
			parts = append(parts, c)
		}
	case "IN":
		for _, v := range f.Values {
			c, err := comparison("EQ", f.Path, v)
			if err != nil {
				return nil, err
			}
			parts = append(parts, c)
		}
	default:
		if len(f.Values) != 1 {
			return nil, fault.New(fault.Invalid, "query: the condition %.20q wants one value", f.Op)
		}
		return comparison(f.Op, f.Path, f.Values[0])
	}
	if len(parts) == 0 {
		return nil, fault.New(fault.Invalid, "query: %s needs at least one condition", f.Op)
	}
	return bson.D{{Key: map[bool]string{true: "$and", false: "$or"}[f.Op == "AND"], Value: parts}}, nil
}

// comparison is one of a field with a scalar. A field that is not there compares
// with nothing, null included; values of different types only differ.
func comparison(op, path string, value json.RawMessage) (bson.D, error) {
	name, err := field(path)
	if err != nil {
		return nil, err
	}
	v, err := scalar(value)
	if err != nil {
		return nil, err
	}
	var is bson.D
	signs := map[string]string{"GT": "$gt", "GTE": "$gte", "LT": "$lt", "LTE": "$lte"}
	null := bson.D{{Key: "$type", Value: "null"}}
	switch sign := signs[op]; {
	case op == "EQ" && v == nil:
		is = null
	case op == "EQ":
		is = bson.D{{Key: "$eq", Value: v}}
	case op == "NEQ" && v == nil:
		is = bson.D{{Key: "$exists", Value: true}, {Key: "$not", Value: null}}
	case op == "NEQ":
		is = bson.D{{Key: "$exists", Value: true}, {Key: "$ne", Value: v}}
	case sign != "":
		is = bson.D{{Key: sign, Value: v}}
	default:
		return nil, fault.New(fault.Invalid, "query: the condition %.20q is not one that this store knows", op)
	}
	return bson.D{{Key: name, Value: is}}, nil
}

// scalar is a value of a query as documents have it.
func scalar(value json.RawMessage) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(value)))
	d.UseNumber()
	v, ok := exact(d, 0)
	switch v.(type) {
	case bson.A, bson.D:
		ok = false
	}
	if !ok {
		return nil, fault.New(fault.Invalid, "query: a value is no text, number, boolean or null that MongoDB can keep")
	}
	return v, nil
}
