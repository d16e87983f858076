package secretsmanager

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
			s.PutSecret("plain", "x")
			s.PutSecret("orders/db", `{"a":"ä"}`)
			return s.Options()
		},
		Wrong: map[string]map[string]string{
			"secretKey": {"secretKey": ""}, "endpoint": {"endpoint": "ftp://x"}, "multipleKeyValuesPerSecret": {"multipleKeyValuesPerSecret": "perhaps"},
		},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "orders/db": {"orders/db": `{"a":"ä"}`}},
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
	s.PutSecret("db", "one")
	arn := s.PutSecret("db", "two")
	d := opened(t, s.Options())
	for _, row := range []struct {
		key      string
		metadata map[string]string
		want     string
	}{
		{"db", nil, "two"},
		{"db", map[string]string{"version_id": "v1"}, "one"},
		{"db", map[string]string{"version_stage": "AWSPREVIOUS"}, "one"},
		{arn, nil, "two"},
	} {
		if got, err := d.Get(t.Context(), row.key, row.metadata); err != nil || got[row.key] != row.want {
			t.Errorf("%s %v: %v, %v", row.key, row.metadata, got, err)
		}
	}
	if _, err := d.Get(t.Context(), "db", map[string]string{"version_id": "v3"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a version that is not there: %v", err)
	}
	for _, key := range []string{"", " db", "db\n"} {
		if _, err := d.Get(t.Context(), key, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestNamesInARNs(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
	for key, want := range map[string][]string{
		"db": nil, arn + "db-AbCdEf": {"db-AbCdEf", "db"}, arn + "orders/db": {"orders/db"}, strings.ToUpper(arn) + "db-AbCdEf": {"db-AbCdEf", "db"}, "arn:": {""},
	} {
		got := (&store{}).Names(key)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestMultiple(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	s.PutSecret("db", `{"user":"u","port":5432,"none":null,"deep":{"a":[1]},"empty":""}`)
	s.PutSecret("text", "canary")
	s.PutBytes("bytes", []byte("\xff\x00"))
	o := s.Options()
	d := opened(t, o)
	if got, err := d.Get(t.Context(), "bytes", nil); err != nil || got["bytes"] != "/wA=" {
		t.Errorf("bytes: %v, %v", got, err)
	}
	o["multipleKeyValuesPerSecret"] = "true"
	d = opened(t, o)
	got, err := d.Get(t.Context(), "db", nil)
	if diff := cmp.Diff(map[string]string{"user": "u", "port": "5432", "deep": `{"a":[1]}`, "empty": ""}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if _, err := d.Get(t.Context(), "text", nil); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "canary") {
		t.Errorf("a text: %v", err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	for i := range 230 {
		s.PutSecret(fmt.Sprint("s", i), fmt.Sprint(i))
	}
	d := opened(t, s.Options())
	all, err := d.Bulk(t.Context(), nil)
	if err != nil || len(all) != 230 || all["s229"]["s229"] != "229" {
		t.Errorf("%d secrets, %v", len(all), err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		f      awsfake.Failure
		kind   fault.Kind
		opens  bool // all the same
		reason string
	}{
		"wrong key":   {awsfake.Failure{Status: 400, Code: "UnrecognizedClientException", Message: "The security token is invalid."}, fault.Denied, false, "security token"},
		"no right":    {awsfake.Failure{Status: 400, Code: "AccessDeniedException", Message: "not authorized"}, fault.Denied, true, "not authorized"},
		"throttled":   {awsfake.Failure{Status: 400, Code: "ThrottlingException", Message: "Rate exceeded"}, fault.Exhausted, false, "Rate exceeded"},
		"out of work": {awsfake.Failure{Status: 500, Code: "InternalServiceError", Message: "try later"}, fault.Unavailable, false, "try later"},
		"decryption":  {awsfake.Failure{Status: 400, Code: "DecryptionFailure", Message: "no key"}, fault.Invalid, true, "no key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := awsfake.Start(t)
			s.PutSecret("db", "canary")
			d := opened(t, s.Options())
			s.Fail(func(string) *awsfake.Failure { return &row.f })
			_, one := d.Get(t.Context(), "db", nil)
			_, bulk := d.Bulk(t.Context(), nil)
			for _, err := range []error{one, bulk} {
				if fault.KindOf(err) != row.kind || err == nil || !strings.Contains(err.Error(), row.reason) || strings.Contains(err.Error(), "canary") {
					t.Errorf("%v of kind %v, want %v", err, fault.KindOf(err), row.kind)
				}
			}
			if _, err := try(t, s.Options()); (err == nil) != row.opens {
				t.Errorf("open: %v", err)
			}
		})
	}
	o := awsfake.Start(t).Options()
	o["endpoint"] = "http://127.0.0.1:1"
	if _, err := try(t, o); !fault.Retriable(err) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAnAnswerWithoutAValue(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	d := opened(t, s.Options())
	s.Fail(func(string) *awsfake.Failure { return &awsfake.Failure{Status: http.StatusOK, Code: "canary"} })
	if got, err := d.Get(t.Context(), "db", nil); err == nil || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v, %v", got, err)
	}
}
