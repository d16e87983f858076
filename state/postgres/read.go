package postgres

import (
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Get implements state.Driver: one query, whatever the number of keys.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	items := make([]state.Item, len(keys))
	switch len(keys) {
	case 0:
		return items, nil
	case 1:
		_, it, err := scan(s.db.Pool().QueryRow(ctx, s.l.one, keys[0]))
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
		items[0] = it
		return items, client.Classify(err)
	}
	rows, err := s.db.Pool().Query(ctx, s.l.many, keys)
	if err != nil {
		return nil, client.Classify(err)
	}
	defer rows.Close()
	found := make(map[string]state.Item, len(keys))
	for rows.Next() {
		key, it, err := scan(rows)
		if err != nil {
			return nil, client.Classify(err)
		}
		found[key] = it
	}
	for i, key := range keys {
		items[i] = found[key]
	}
	return items, client.Classify(rows.Err())
}

// scan reads one row of the columns of a layout.
func scan(row pgx.Row) (key string, it state.Item, err error) {
	var binary bool
	var expires *time.Time
	if err := row.Scan(&key, &it.Value, &it.ETag, &expires, &binary); err != nil {
		return "", state.Item{}, err
	}
	it.Found = true
	if expires != nil {
		it.Expires = expires.UTC()
	}
	if !binary {
		return key, it, nil
	}
	n := len(it.Value) - 1
	if n < 1 || it.Value[0] != '"' || it.Value[n] != '"' {
		it.Value, it.Err = nil, errNotBase64
		return key, it, nil
	}
	if it.Value, err = base64.StdEncoding.AppendDecode(nil, it.Value[1:n]); err != nil {
		it.Value, it.Err = nil, errNotBase64
	}
	return key, it, nil
}

var errNotBase64 = fault.New(fault.Invalid, "read value: the row says that it is base64, and it is not")

// Keys implements state.Lister. The token is the number of the last row of the
// page before.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) (keys []string, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var last int64
	if token != "" {
		if last, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, "", fault.New(fault.Invalid, "list keys: the token is not one of this store's")
		}
	}
	rows, err := s.db.Pool().Query(ctx, s.l.keys, prefix, last, limit+1)
	if err != nil {
		return nil, "", client.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var id int64
		if err := rows.Scan(&key, &id); err != nil {
			return nil, "", client.Classify(err)
		}
		if len(keys) == limit {
			next = strconv.FormatInt(last, 10)
			break
		}
		keys, last = append(keys, key), id
	}
	return keys, next, client.Classify(rows.Err())
}
