package sqlite

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// most is how many keys one statement reads; SQLite takes 32766.
const most = 1000

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	items := make([]state.Item, len(keys))
	if len(keys) == 1 {
		var key string
		err := scan(s.one.QueryRowContext(ctx, keys[0]), &key, &items[0])
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return items, client.Classify(err)
	}
	found := make(map[string]state.Item, len(keys))
	for rest := keys; len(rest) > 0; {
		n := min(len(rest), most)
		if err := s.read(ctx, rest[:n], found); err != nil {
			return nil, client.Classify(err)
		}
		rest = rest[n:]
	}
	for i, key := range keys {
		items[i] = found[key]
	}
	return items, nil
}

func (s *store) read(ctx context.Context, keys []string, found map[string]state.Item) error {
	args := make([]any, len(keys))
	for i, key := range keys {
		args[i] = key
	}
	rows, err := s.db.Read().QueryContext(ctx, s.q.read+strings.Repeat("?,", len(keys)-1)+"?"+s.q.live, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var it state.Item
		if err := scan(rows, &key, &it); err != nil {
			return err
		}
		found[key] = it
	}
	return rows.Err()
}

// scan reads one row into an item.
func scan(row interface{ Scan(...any) error }, key *string, it *state.Item) error {
	var binary bool
	var expires sql.NullInt64
	if err := row.Scan(key, &it.Value, &binary, &it.ETag, &expires); err != nil {
		return err
	}
	it.Found = true
	if expires.Valid {
		it.Expires = time.Unix(expires.Int64, 0).UTC()
	}
	if !binary {
		return nil
	}
	n, err := base64.StdEncoding.Decode(it.Value, it.Value)
	if it.Value = it.Value[:n]; err != nil {
		it.Value, it.Err = nil, fault.New(fault.Invalid, "read value: the row says that it is base64, and it is not")
	}
	return nil
}

// Keys implements state.Lister. The token is the last key of the page before.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) (keys []string, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	rows, err := s.db.Read().QueryContext(ctx, s.q.keys, prefix, token, limit+1)
	if err != nil {
		return nil, "", client.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, "", client.Classify(err)
		}
		if !strings.HasPrefix(key, prefix) {
			break // keys come in order
		}
		keys = append(keys, key)
	}
	if err := rows.Err(); err != nil {
		return nil, "", client.Classify(err)
	}
	if len(keys) > limit {
		return keys[:limit], keys[limit-1], nil
	}
	return keys, "", nil
}
