package http_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
)

func (i *instance) LockStore(name string) (*lock.Store, error) {
	if name != "lockstore" {
		return nil, fault.New(fault.NotFound, "lock store %q is not loaded", name)
	}
	return i.locks, nil
}

// cabinet is a lock store that holds for ever what it grants.
type cabinet struct {
	mu     sync.Mutex
	owners map[string]string
	tokens int64
}

var errCabinet = fault.New(fault.Unavailable, "cabinet is stuck")

func (c *cabinet) TryLock(_ context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case owner == "stuck":
		return lock.Grant{}, errCabinet
	case expiry != 60*time.Second:
		return lock.Grant{}, fault.New(fault.Internal, "expiry %s", expiry)
	case c.owners[key] != "":
		return lock.Grant{}, nil
	}
	c.tokens++
	c.owners[key] = owner
	return lock.Grant{Held: true, Token: c.tokens}, nil
}

func (c *cabinet) Renew(_ context.Context, key, owner string, _ time.Duration) (lock.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status(key, owner)
}

func (c *cabinet) Unlock(_ context.Context, key, owner string) (lock.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := c.status(key, owner)
	if st == lock.Done {
		delete(c.owners, key)
	}
	return st, err
}

func (c *cabinet) status(key, owner string) (lock.Status, error) {
	switch c.owners[key] {
	case owner:
		return lock.Done, nil
	case "":
		return lock.Missing, nil
	}
	if owner == "stuck" {
		return lock.Failed, errCabinet
	}
	return lock.Foreign, nil
}

func (c *cabinet) Close(context.Context) error { return nil }

func openLocks(tb testing.TB, env component.Env) *lock.Store {
	tb.Helper()
	s, err := lock.New(lock.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (lock.Driver, error) {
		return &cabinet{owners: map[string]string{}}, nil
	}), env, config.Component{Name: env.Name})
	must(tb, err)
	run(tb, s.Instance())
	return s
}

// Locks as an app sees them, one request after the other.
func TestLocks(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	const dapr, ours = "/v1.0-alpha1", "/v1.0-penstock"
	for _, row := range []struct {
		target, body string
		status       int
		want, token  string
	}{
		{dapr + "/lock/lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":60}`, 200, `{"success":true}`, "1"},
		{dapr + "/lock/lockstore", `{"resourceId":"a","lockOwner":"bob","expiryInSeconds":60}`, 200, `{"success":false}`, ""},
		{dapr + "/unlock/lockstore", `{"resourceId":"a","lockOwner":"bob"}`, 200, `{"status":2}`, ""},
		{ours + "/lock/lockstore/renew", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":60}`, 200, `{"status":0}`, ""},
		{ours + "/lock/lockstore/renew", `{"resourceId":"a","lockOwner":"bob","expiryInSeconds":60}`, 200, `{"status":2}`, ""},
		{dapr + "/unlock/lockstore", `{"resourceId":"a","lockOwner":"ann"}`, 200, `{"status":0}`, ""},
		{dapr + "/unlock/lockstore", `{"resourceId":"a","lockOwner":"ann"}`, 200, `{"status":1}`, ""},
		{ours + "/lock/lockstore/renew", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":60}`, 200, `{"status":1}`, ""},
		{ours + "/lock/lockstore", `{"resourceId":"a","lockOwner":"bob","expiryInSeconds":"60","other":1}`, 200, `{"success":true,"fencingToken":2}`, ""},
		{ours + "/lock/lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":6e1}`, 200, `{"success":false}`, ""},
		{ours + "/unlock/lockstore", `{"resourceId":"a","lockOwner":"bob"}`, 200, `{"status":0}`, ""},
	} {
		w := ask(h, http.MethodPost, row.target, row.body)
		if w.Code != row.status || w.Body.String() != row.want || w.Header().Get("Penstock-Fencing-Token") != row.token {
			t.Errorf("%s %s: %d %s, token %q; want %d %s, token %q", row.target, row.body, w.Code, w.Body,
				w.Header().Get("Penstock-Fencing-Token"), row.status, row.want, row.token)
		}
	}
}

func TestLockErrors(t *testing.T) {
	t.Parallel()
	h, bare := start(t).handler(apihttp.Options{}), apihttp.New(api.New("shop", &instance{empty: true}), apihttp.Options{})
	const try, renew, unlock = "/v1.0-alpha1/lock/", "/v1.0-penstock/lock/lockstore/renew", "/v1.0-alpha1/unlock/"
	good := `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":60}`
	for name, row := range map[string]struct {
		h            http.Handler
		target, body string
		status       int
		code, says   string
	}{
		"no store at all":         {bare, try + "lockstore", good, 500, "ERR_LOCK_STORE_NOT_CONFIGURED", "no lock store is loaded"},
		"no store at all, unlock": {bare, unlock + "lockstore", good, 500, "ERR_LOCK_STORE_NOT_CONFIGURED", "no lock store is loaded"},
		"unknown store":           {h, try + "gone", good, 400, "ERR_LOCK_STORE_NOT_FOUND", "gone"},
		"unknown store, unlock":   {h, unlock + "gone", good, 400, "ERR_LOCK_STORE_NOT_FOUND", "gone"},
		"no expiry":               {h, try + "lockstore", `{"resourceId":"a","lockOwner":"ann"}`, 400, "ERR_MALFORMED_REQUEST", "expiryInSeconds"},
		"no expiry before no one": {bare, try + "lockstore", `{}`, 400, "ERR_MALFORMED_REQUEST", "expiryInSeconds"},
		"expiry zero":             {h, try + "lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":0}`, 400, "ERR_MALFORMED_REQUEST", "expiryInSeconds"},
		"expiry negative":         {h, renew, `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":-1}`, 400, "ERR_MALFORMED_REQUEST", "expiryInSeconds"},
		"expiry null":             {h, renew, `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":null}`, 400, "ERR_MALFORMED_REQUEST", "expiryInSeconds"},
		"expiry in part":          {h, try + "lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":1.5}`, 400, "ERR_MALFORMED_REQUEST", "whole number"},
		"expiry huge":             {h, try + "lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":4294967296}`, 400, "ERR_MALFORMED_REQUEST", "whole number"},
		"expiry a word":           {h, try + "lockstore", `{"resourceId":"a","lockOwner":"ann","expiryInSeconds":"soon"}`, 400, "ERR_MALFORMED_REQUEST", "whole number"},
		"no name":                 {h, try + "lockstore", `{"lockOwner":"ann","expiryInSeconds":60}`, 400, "ERR_MALFORMED_REQUEST", "resourceId"},
		"no name, unlock":         {h, unlock + "lockstore", `{"lockOwner":"ann"}`, 400, "ERR_MALFORMED_REQUEST", "resourceId"},
		"no owner":                {h, try + "lockstore", `{"resourceId":"a","expiryInSeconds":60}`, 400, "ERR_MALFORMED_REQUEST", "lockOwner"},
		"no owner, unlock":        {h, unlock + "lockstore", `{"resourceId":"a"}`, 400, "ERR_MALFORMED_REQUEST", "lockOwner"},
		"no body":                 {h, unlock + "lockstore", ``, 400, "ERR_MALFORMED_REQUEST", "resourceId"},
		"not JSON":                {h, try + "lockstore", `lock it`, 400, "ERR_MALFORMED_REQUEST", "the body is not"},
		"not UTF-8":               {h, try + "lockstore", "{\"resourceId\":\"\xff\"}", 400, "ERR_MALFORMED_REQUEST", "UTF-8"},
		"a list":                  {h, try + "lockstore", `[]`, 400, "ERR_MALFORMED_REQUEST", "the body is not"},
		"name a number":           {h, try + "lockstore", `{"resourceId":1}`, 400, "ERR_MALFORMED_REQUEST", "the body is not"},
		"other app's":             {h, try + "lockstore", `{"resourceId":"x||a","lockOwner":"ann","expiryInSeconds":60}`, 500, "ERR_TRY_LOCK", `must not contain \"||\"`},
		"other app's, unlock":     {h, unlock + "lockstore", `{"resourceId":"x||a","lockOwner":"ann"}`, 500, "ERR_UNLOCK", `must not contain \"||\"`},
		"long name":               {h, try + "lockstore", `{"resourceId":"` + strings.Repeat("a", 2000) + `","lockOwner":"ann","expiryInSeconds":60}`, 500, "ERR_TRY_LOCK", "1024 is the limit"},
		"store fails":             {h, try + "lockstore", `{"resourceId":"a","lockOwner":"stuck","expiryInSeconds":60}`, 500, "ERR_TRY_LOCK", "cabinet is stuck"},
		"method":                  {h, try, good, 404, "ERR_NOT_FOUND", "no API"},
	} {
		w := ask(row.h, http.MethodPost, row.target, row.body)
		if w.Code != row.status || !strings.Contains(w.Body.String(), `"errorCode":"`+row.code+`"`) || !strings.Contains(w.Body.String(), row.says) {
			t.Errorf("%s: %d %s; want %d %s, %q", name, w.Code, w.Body, row.status, row.code, row.says)
		}
	}
	for _, target := range []string{try + "lockstore", unlock + "lockstore", renew} {
		if w := ask(h, http.MethodGet, target, ""); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d, want 405", target, w.Code)
		}
	}
}
