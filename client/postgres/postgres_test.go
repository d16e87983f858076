package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestOptionsStandAboveTheConnectionString(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"postgres://old:x@there:1/other", "postgres://there/?host=that&port=9&sslmode=disable", "host=there user=old"} {
		o := Options{
			ConnectionString: component.NewSecret(given), Host: "here", Port: "77", Database: "d", User: "u'",
			Password: component.NewSecret(`p' \`), Timeout: time.Second, MaxConns: 3,
		}
		c, err := o.config()
		if err != nil {
			t.Fatal(err)
		}
		got := c.ConnConfig
		if got.Host != "here" || got.Port != 77 || got.Database != "d" || got.User != "u'" || got.Password != `p' \` || c.MaxConns != 3 {
			t.Errorf("%s: %s:%d/%s as %s with %s, %d connections", given, got.Host, got.Port, got.Database, got.User, got.Password, c.MaxConns)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]fault.Kind{
		"28P01": fault.Denied, "42501": fault.Denied, "3D000": fault.NotFound, "42P01": fault.NotFound, "42601": fault.Invalid,
		"23505": fault.Conflict, "53300": fault.Exhausted, "57P01": fault.Unavailable, "57014": fault.Timeout,
		"40001": fault.Unavailable, "40P01": fault.Unavailable, "25006": fault.Unavailable, "22P02": fault.Invalid, "XX000": fault.Internal,
	} {
		if got := fault.KindOf(Classify(&pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is %v, want %v", code, got, want)
		}
	}
	if Classify(nil) != nil || fault.KindOf(Classify(errors.New("unexpected EOF"))) != fault.Unavailable {
		t.Error("a broken connection is not unavailable")
	}
}

func TestOpenUnreachable(t *testing.T) {
	t.Parallel()
	o := Options{ConnectionString: component.NewSecret("postgres://u:geheim@127.0.0.1:1/d"), Timeout: 5 * time.Second}
	_, err := Open(t.Context(), component.Env{}, o)
	if err == nil || !fault.Retriable(err) || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "\n") {
		t.Errorf("open: %v (%v)", err, fault.KindOf(err))
	}
}
