package component

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
)

// TestPieces: what is secret of an address is known by itself, for a driver may
// quote it without the rest.
func TestPieces(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]string{
		"amqp://guest:pass%2Fword@host:5672/v":               {"pass/word", "pass%2Fword"},
		"nats://a:one@h1,nats://b:two@h2":                    {"one", "two"},
		"https://token@host/path":                            {"token"},
		"postgres://u:p@ss@h/db?sslmode=disable":             {"p@ss"},
		"http://h/a@b?x=1":                                   {"x=1"},
		"http://h/?code=abc&format=json&id=0123456789ab#top": {"code=abc&format=json&id=0123456789ab", "0123456789ab"},
		"root:secret@tcp(127.0.0.1:3306)/db?tls=true":        {"secret"},
		"host=h user=u password='a b' sslmode=off":           {"a b"},
		"Endpoint=sb://h/;SharedAccessKey=abc=;EntityPath=q": {"abc="},
		"AccountName=n;AccountKey=k==;BlobEndpoint=http://h": {"k=="},
		"@every 5m":       nil,
		"a@example.com":   nil,
		"event.a == 'b@'": nil,
		"127.0.0.1:6379":  nil,
	} {
		if diff := cmp.Diff(want, pieces(value)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
}

type connected struct {
	URL     string            `meta:"url" doc:"D."`
	DSN     Secret            `meta:"dsn" doc:"D."`
	Headers map[string]string `meta:"header:*" doc:"D."`
}

// TestNothingSaysASecret: neither what a driver logs or returns, nor its panic.
func TestNothingSaysASecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	secrets := []string{"first-secret", "second-secret", "third-secret"}
	def := Define("bindings.pump", About{}, nil, func(_ context.Context, env Env, o connected) (Driver, error) {
		env.Logger.Warn("cannot dial "+o.URL, "error", errors.New("user second-secret refused"), "header", o.Headers["Authorization"],
			slog.Group("g", "url", o.URL), "n", 7)
		env.Logger.With("url", o.URL).WithGroup("w").Debug("dial", "dsn", o.DSN.Reveal())
		panic("no second-secret at " + o.URL)
	})
	items := []config.Item{
		{Name: "url", Value: "http://u:first-secret@h/"},
		{Name: "dsn", Value: "u:second-secret@tcp(h)/db"},
		{Name: "header:Authorization", Value: "Bearer third-secret"},
	}
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	i := NewInstance[*pump](def, Env{Name: "p", Logger: log}, items, 0)
	result := running(t, i)
	err := i.Wait(t.Context())
	said := i.State().LastError
	if err := errors.Join(i.Close(t.Context()), result()); err != nil {
		t.Error(err)
	}
	if err == nil || !strings.Contains(out.String(), "cannot dial http://u:***@h/") || !strings.Contains(out.String(), "n=7") || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("error %v, log\n%s", err, out.String())
	}
	for _, s := range secrets {
		if text := out.String() + said + err.Error(); strings.Contains(text, s) {
			t.Errorf("%s is in\n%s", s, text)
		}
	}
}

// TestHeadersOfTheOtherStruct: options that begin alike belong to one of the two
// structs that are decoded from the same items. It was a panic.
func TestHeadersOfTheOtherStruct(t *testing.T) {
	t.Parallel()
	type shared struct {
		Direction []string `meta:"direction" doc:"D."`
	}
	o, problems := Decode[shared]("bindings.x", []config.Item{{Name: "direction", Value: "input"}, {Name: "header:A", Value: "b"}}, optionsOf(connected{}))
	if len(problems) > 0 || !cmp.Equal(o, shared{[]string{"input"}}) {
		t.Errorf("%+v, %v", o, problems)
	}
}
