package mysql

import (
	"context"
	"database/sql"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/mysql"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// A statement reads 1, 8, 64, 512 or 4096 keys: it is prepared for each.
const (
	most = 4096
	step = 8
)

var errNotBase64 = fault.New(fault.Invalid, "read value: the row says that it is base64, and it is not")

// Get implements state.Driver: one query for up to 4096 keys.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	found := make(map[string]state.Item, len(keys))
	for rest := keys; len(rest) > 0; {
		n := min(len(rest), most)
		if err := s.read(ctx, rest[:n], found); err != nil {
			return nil, client.Classify(err)
		}
		rest = rest[n:]
	}
	items := make([]state.Item, len(keys))
	for i, key := range keys {
		items[i] = found[key]
	}
	return items, nil
}

func (s *store) read(ctx context.Context, keys []string, found map[string]state.Item) error {
	size := 1
	for size < len(keys) {
		size *= step
	}
	args := make([]any, size)
	for i := range args {
		args[i] = keys[min(i, len(keys)-1)]
	}
	rows, err := s.t.ready[s.t.read(size)].QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var it state.Item
		var binary bool
		var expires sql.NullInt64
		if err := rows.Scan(&key, &it.Value, &binary, &it.ETag, &expires); err != nil {
			return err
		}
		if it.Found = true; expires.Valid {
			it.Expires = time.Unix(expires.Int64, 0).UTC()
		}
		if binary {
			it.Value, it.Err = decode(it.Value)
		}
		found[key] = it
	}
	return rows.Err()
}

// decode reads base64 in JSON.
func decode(text []byte) ([]byte, error) {
	n := len(text) - 1
	if n < 1 || text[0] != '"' || text[n] != '"' {
		return nil, errNotBase64
	}
	value, err := base64.StdEncoding.AppendDecode(nil, text[1:n])
	if err != nil {
		return nil, errNotBase64
	}
	return value, nil
}

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
	like := strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(prefix) + "%"
	rows, err := s.t.ready[s.t.keys].QueryContext(ctx, last, like, limit+1)
	if err != nil {
		return nil, "", client.Classify(err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		var key string
		var id int64
		if err := rows.Scan(&key, &id); err != nil {
			return nil, "", client.Classify(err)
		}
		if n == limit {
			next = strconv.FormatInt(last, 10)
			break
		}
		if last = id; strings.HasPrefix(key, prefix) { // a table of Dapr's may not know cases
			keys = append(keys, key)
		}
	}
	return keys, next, client.Classify(rows.Err())
}
