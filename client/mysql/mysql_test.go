package mysql

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func secret(url string) Options { return Options{URL: component.NewSecret(url)} }

func TestOptions(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		o      Options
		option string // that is wrong
	}{
		{"plain", secret("u:p@tcp(h:3306)/d"), ""},
		{"a socket", secret("u@unix(/run/x.sock)/d?parseTime=true&loc=UTC"), ""},
		{"certificates", Options{URL: component.NewSecret("u@tcp(h)/d?tls=custom&parseTime=true"), PemPath: "x"}, ""},
		{"no slash", secret("u:geheim@tcp(h:3306)"), "url"},
		{"a network that there is not", secret("u:geheim@geheim(h:1)/d?nothing=&x"), ""},
		{"a parameter that is wrong", secret("u:geheim@tcp(h)/d?timeout=geheim"), "url"},
		{"certificates that are missing", secret("u@tcp(h)/d?tls=custom"), "pemPath"},
		{"negative", Options{URL: component.NewSecret("u@tcp(h)/d"), MaxOpenConns: -1}, "maxOpenConns"},
		{"negative idle", Options{URL: component.NewSecret("u@tcp(h)/d"), MaxIdleConns: -1}, "maxIdleConns"},
		{"negative life", Options{URL: component.NewSecret("u@tcp(h)/d"), ConnMaxLifetime: -1}, "connMaxLifetime"},
		{"negative idle time", Options{URL: component.NewSecret("u@tcp(h)/d"), ConnMaxIdleTime: -1}, "connMaxIdleTime"},
	}
	for _, r := range rows {
		err := r.o.Check()
		if (err == nil) != (r.option == "") || err != nil && !strings.Contains(err.Error(), r.option) {
			t.Errorf("%s: %v, want a word about %q", r.name, err, r.option)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	o := Options{URL: component.NewSecret("u@tcp(db.example:3306)/d?tls=custom&parseTime=true"), PemPath: file}
	if _, err := o.config(slog.New(slog.DiscardHandler)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.config(nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("no certificate: %v", err)
	}
	const pem = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIBATAKBggqhkjOPQQDAjAMMQowCAYDVQQDEwF4MB4XDTI2
-----END CERTIFICATE-----`
	if err := os.WriteFile(file, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.config(nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("half a certificate: %v", err)
	}
	c, custom, err := o.parse()
	if err != nil || !custom || !c.ParseTime || c.Addr != "db.example:3306" {
		t.Errorf("parsed %+v, custom %v: %v", c, custom, err)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		number uint16
		state  string
		want   fault.Kind
	}{
		{1045, "28000", fault.Denied},
		{1049, "42000", fault.NotFound},
		{1146, "42S02", fault.NotFound},
		{1062, "23000", fault.Conflict},
		{1064, "42000", fault.Invalid},
		{1054, "42S22", fault.Invalid},
		{1213, "40001", fault.Unavailable},
		{1205, "HY000", fault.Unavailable},
		{1040, "08004", fault.Exhausted},
		{1290, "HY000", fault.Unavailable},
		{1969, "70100", fault.Timeout},
		{1364, "HY000", fault.Invalid},
		{4025, "23000", fault.Invalid},
		{9999, "HY000", fault.Internal},
	} {
		e := &driver.MySQLError{Number: row.number}
		copy(e.SQLState[:], row.state)
		if got := fault.KindOf(Classify(e)); got != row.want {
			t.Errorf("%d (%s) is %v, want %v", row.number, row.state, got, row.want)
		}
	}
	for err, want := range map[error]fault.Kind{
		driver.ErrInvalidConn: fault.Unavailable, sql.ErrNoRows: fault.NotFound, context.DeadlineExceeded: fault.Timeout,
		errors.New("sql: expected 1 arguments, got 0"): fault.Invalid, fault.New(fault.Denied, "x"): fault.Denied,
	} {
		if got := fault.KindOf(Classify(err)); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	if Classify(nil) != nil {
		t.Error("no error is one")
	}
}

func TestOpenUnreachable(t *testing.T) {
	t.Parallel()
	began := time.Now()
	_, err := Open(t.Context(), component.Env{}, secret("u:geheim@tcp(127.0.0.1:1)/d"))
	if err == nil || !fault.Retriable(err) || strings.Contains(err.Error(), "geheim") || time.Since(began) > openTime {
		t.Errorf("open: %v (%v)", err, fault.KindOf(err))
	}
}
