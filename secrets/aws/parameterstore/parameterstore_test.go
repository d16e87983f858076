package parameterstore

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(t *testing.T) map[string]string {
			s := awsfake.Start(t)
			s.PutParameter("/orders/plain", "x")
			s.PutParameter("/orders/db/password", "ä")
			s.PutParameter("/others/hidden", "y")
			o := s.Options()
			o["prefix"] = "/orders/"
			return o
		},
		Wrong: map[string]map[string]string{
			"secretKey": {"secretKey": ""}, "endpoint": {"endpoint": "ftp://x"}, "prefix": {"prefix": "arn:aws:ssm"},
		},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "db/password": {"db/password": "ä"}},
		Missing: "nothing",
	})
}

func try(t *testing.T, options map[string]string) (secrets.Driver, error) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "vault", Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.Close(context.WithoutCancel(t.Context())) })
	return d.(secrets.Driver), nil
}

func opened(t *testing.T, options map[string]string) secrets.Driver {
	t.Helper()
	d, err := try(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	s.PutParameter("db", "one")
	s.PutParameter("db", "two")
	d := opened(t, s.Options())
	for version, want := range map[string]string{"": "two", "1": "one", "2": "two"} {
		if got, err := d.Get(t.Context(), "db", map[string]string{"version_id": version}); err != nil || got["db"] != want {
			t.Errorf("version %q: %v, %v", version, got, err)
		}
	}
	for version, kind := range map[string]fault.Kind{"3": fault.NotFound, "latest": fault.Invalid, "-1": fault.Invalid} {
		if _, err := d.Get(t.Context(), "db", map[string]string{"version_id": version}); fault.KindOf(err) != kind {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// A key is the name of one parameter, whatever it is made of.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	s.PutParameter("hidden", "canary")
	d := opened(t, s.Options())
	for _, key := range []string{
		"", "hidden:1", "hidden:label", "arn:aws:ssm:us-east-1:123456789012:parameter/hidden", "hidden ", "a//hidden", "hidden/", "hidden\n", "h*", "ä",
		strings.Repeat("x", 2000),
	} {
		if got, err := d.Get(t.Context(), key, nil); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", key, got, err)
		}
	}
	n := d.(secrets.Namer)
	if got := n.Names("/hidden"); len(got) != 1 || got[0] != "hidden" {
		t.Errorf("names of /hidden: %q", got)
	}
	if got := n.Names("hidden"); len(got) != 1 || got[0] != "/hidden" {
		t.Errorf("names of hidden: %q", got)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	for i := range 123 {
		s.PutParameter(fmt.Sprint("p", i), fmt.Sprint(i))
	}
	d := opened(t, s.Options())
	all, err := d.Bulk(t.Context(), nil)
	if err != nil || len(all) != 123 || all["p122"]["p122"] != "122" {
		t.Errorf("%d secrets, %v", len(all), err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		f     awsfake.Failure
		kind  fault.Kind
		opens bool // all the same
	}{
		"wrong key":   {awsfake.Failure{Status: 400, Code: "UnrecognizedClientException", Message: "The security token is invalid."}, fault.Denied, false},
		"no right":    {awsfake.Failure{Status: 400, Code: "AccessDeniedException", Message: "not authorized"}, fault.Denied, true},
		"throttled":   {awsfake.Failure{Status: 400, Code: "ThrottlingException", Message: "Rate exceeded"}, fault.Exhausted, false},
		"out of work": {awsfake.Failure{Status: 500, Code: "InternalServerError", Message: "try later"}, fault.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := awsfake.Start(t)
			s.PutParameter("db", "canary")
			d := opened(t, s.Options())
			s.Fail(func(string) *awsfake.Failure { return &row.f })
			_, one := d.Get(t.Context(), "db", nil)
			_, bulk := d.Bulk(t.Context(), nil)
			for _, err := range []error{one, bulk} {
				if err == nil || fault.KindOf(err) != row.kind || strings.Contains(err.Error(), "canary") {
					t.Errorf("%v of kind %v, want %v", err, fault.KindOf(err), row.kind)
				}
			}
			if _, err := try(t, s.Options()); (err == nil) != row.opens {
				t.Errorf("open: %v", err)
			}
		})
	}
}
