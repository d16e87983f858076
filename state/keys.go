package state

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// separator stands between the prefix and the app's key, so neither may hold it.
const separator = "||"

// Errors that callers tell apart.
var (
	// ErrKey marks a key that cannot be one.
	ErrKey = errors.New("illegal key")
	// ErrNoTransactions: the store has no transactions.
	ErrNoTransactions = fault.New(fault.Invalid, "the store has no transactions")
	// ErrNoList: the store cannot list its keys.
	ErrNoList = fault.New(fault.Invalid, "the store cannot list its keys")
)

// TooManyError is for a transaction that has more changes than the store takes.
type TooManyError struct{ Changes, Most int }

// Error says how many.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("the transaction has %d changes, and the store takes %d", e.Changes, e.Most)
}

// Unwrap gives the error its kind.
func (e *TooManyError) Unwrap() error { return fault.New(fault.Invalid, "too many changes") }

func illegal(key string) error {
	return fault.New(fault.Invalid, "%w %q: it must not contain %q", ErrKey, short(key), separator)
}

// short is key for an error text.
func short(key string) string {
	const most = 100
	if len(key) > most {
		return key[:most] + "..."
	}
	return key
}

// checkKey refuses what could reach another app's keys, or no store can keep.
func (s *Store) checkKey(key string) error {
	switch {
	case key == "":
		return fault.New(fault.Invalid, "%w: it is empty", ErrKey)
	case len(key) > MaxKey:
		return fault.New(fault.Invalid, "%w %q: it has %d bytes, and %d is the limit", ErrKey, short(key), len(key), MaxKey)
	case strings.Contains(key, separator):
		return illegal(key)
	}
	return nil
}

// prefixOf returns what stands before every key of a store. Words count without
// regard to case and a text of its own is lowered, as under Dapr.
func prefixOf(strategy, name string, env component.Env) (string, error) {
	app := ""
	if env.AppID != "" {
		app = env.AppID + separator
	}
	switch strategy = strings.ToLower(strings.TrimSpace(strategy)); strategy {
	case "appid", "":
		return app, nil
	case "name":
		return name + separator, nil
	case "namespace":
		if env.Namespace == "" || app == "" {
			return app, nil
		}
		return env.Namespace + "." + app, nil
	case "none":
		return "", nil
	}
	if strings.Contains(strategy, separator) {
		return "", component.OptionErrorf("keyPrefix", "must not contain %q", separator)
	}
	return strategy + separator, nil
}

// ttlKey is the request metadata that says how long to keep an item, in seconds.
const ttlKey = "ttlInSeconds"

// maxTTL keeps a time to live within what clocks and stores can count.
const maxTTL = 100 * 365 * 24 * 60 * 60

// ttlOf reads the time to live of a request; -1 and 0 are for ever.
func ttlOf(metadata map[string]string) (time.Duration, error) {
	text, ok := metadata[ttlKey]
	if !ok {
		for k, v := range metadata {
			if strings.EqualFold(k, ttlKey) {
				text = v
			}
		}
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n < -1 || n > maxTTL:
		return 0, fault.New(fault.Invalid, "read metadata %s: %q is not a number of seconds, from -1 (for ever) to %d", ttlKey, short(text), maxTTL)
	case n <= 0:
		return -1, nil
	}
	return time.Duration(n) * time.Second, nil
}
