package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

func openSender(t *testing.T, pairs ...string) *sender {
	t.Helper()
	d, err := Component.Open(t.Context(), newEnv(t, "out"), settings(pairs...))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	s := d.(*sender)
	t.Cleanup(func() { _ = s.Close(context.WithoutCancel(t.Context())) })
	return s
}

// sink is a server that keeps what it gets.
type sink struct {
	*httptest.Server
	head http.Header
	body string
	n    atomic.Int32
}

func newSink(t *testing.T, answer http.HandlerFunc) *sink {
	t.Helper()
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read request: %v", err)
		}
		s.head, s.body = r.Header.Clone(), string(body)
		s.n.Add(1)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func fine(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "thanks") }

func TestSendSigned(t *testing.T) {
	t.Parallel()
	for _, preset := range []string{"", standard, github, gitlab, stripe, slack, shopify, generic, bearer} {
		t.Run("signature "+preset, func(t *testing.T) {
			t.Parallel()
			server := newSink(t, fine)
			out := openSender(t, "url", server.URL+"/x?y=1", "signature", preset, "secret", "whsec_AAAA", "secondarySecret", "whsec_BBBB",
				"headers", "X-Tenant: acme,X-B:2", "timestampHeader", "X-Time")
			res, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(`{"a":1}`), Metadata: map[string]string{
				"id": "evt.1", "header.X-B": "3", "other": "ignored",
			}})
			if err != nil {
				t.Fatal(err)
			}
			if string(res.Data) != "thanks" || res.Metadata["statusCode"] != "200" || res.Metadata["truncated"] != "" {
				t.Errorf("answer %q %v", res.Data, res.Metadata)
			}
			if err := out.scheme.verify(server.head, []byte(server.body), time.Now()); err != nil {
				t.Errorf("the signature: %v in %v", err, server.head)
			}
			if server.body != `{"a":1}` || server.head.Get("X-Tenant") != "acme" || server.head.Get("X-B") != "3" ||
				server.head.Get("Content-Type") != "application/json" || server.head.Get("Accept-Encoding") != "" {
				t.Errorf("request %q %v", server.body, server.head)
			}
			if preset == "" && (server.head.Get("Webhook-Id") != "evt-1" || strings.Count(server.head.Get("Webhook-Signature"), "v1,") != 2) {
				t.Errorf("standard webhooks: %v", server.head)
			}
		})
	}
}

func TestSendFormats(t *testing.T) {
	t.Parallel()
	meta := map[string]string{"id": "1", "type": "t", "source": "s", "subject": "u"}
	for _, row := range []struct {
		name, format string
		data         string
		metadata     map[string]string
		body         string
		head         map[string]string
		kind         fault.Kind
	}{
		{"raw text", raw, "x\xff", map[string]string{"contentType": "text/plain"}, "x\xff", map[string]string{"Content-Type": "text/plain"}, 0},
		{"binary", binary, `{"a":1}`, meta, `{"a":1}`, map[string]string{
			"Content-Type": "application/json", "Ce-Id": "1", "Ce-Type": "t", "Ce-Source": "s", "Ce-Subject": "u", "Ce-Specversion": "1.0",
		}, 0},
		{
			"an event in binary", binary, `{"specversion":"1.0","id":"9","source":"s","type":"t","data":[1]}`,
			map[string]string{"contentType": "application/cloudevents+json"},
			"[1]",
			map[string]string{"Ce-Id": "9", "Content-Type": "application/json"},
			0,
		},
		{
			"an event as it is", structured, `{"specversion":"1.0", "id":"9","source":"s","type":"t"}`,
			map[string]string{"contentType": "application/cloudevents+json"},
			`{"specversion":"1.0", "id":"9","source":"s","type":"t"}`,
			map[string]string{"Content-Type": "application/cloudevents+json"},
			0,
		},
		{"no event", structured, `{}`, map[string]string{"contentType": "application/cloudevents+json"}, "", nil, fault.Invalid},
		{"no JSON", structured, `{`, meta, "", nil, fault.Invalid},
		{"a header that is none", raw, `{}`, map[string]string{"header.X Y": "1"}, "", nil, fault.Invalid},
		{"a header with a line break", raw, `{}`, map[string]string{"header.X": "1\r\nY: 2"}, "", nil, fault.Invalid},
		{"a content type with a line break", raw, `{}`, map[string]string{"contentType": "a\nb"}, "", nil, fault.Invalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newSink(t, fine)
			out := openSender(t, "url", server.URL, "format", row.format)
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "post", Data: []byte(row.data), Metadata: row.metadata})
			if row.kind != 0 {
				if err == nil || fault.KindOf(err) != row.kind || server.n.Load() != 0 {
					t.Errorf("got %v (%v) after %d requests", err, fault.KindOf(err), server.n.Load())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if server.body != row.body {
				t.Errorf("body %s, want %s", server.body, row.body)
			}
			for name, want := range row.head {
				if got := server.head.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestSendStructured(t *testing.T) {
	t.Parallel()
	server := newSink(t, fine)
	out := openSender(t, "url", server.URL, "format", structured, "eventType", "com.example.x")
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(`{"a":1.0}`)}); err != nil {
		t.Fatal(err)
	}
	e, err := cloudevents.Scan([]byte(server.body))
	if err != nil {
		t.Fatal(err)
	}
	if e.Type() != "com.example.x" || e.Source() != "/webhooks/out" || string(e.Data()) != `{"a":1.0}` || e.ID() == "" {
		t.Errorf("event %s", server.body)
	}
}

func TestSendRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		kind   fault.Kind
		after  time.Duration
		part   string
	}{
		{"busy", status(429, "Retry-After", "17"), fault.Exhausted, 17 * time.Second, "answered 429"},
		{"unavailable", status(503, "Retry-After", "5"), fault.Unavailable, 5 * time.Second, "answered 503"},
		{"gone", status(410), fault.NotFound, 0, "answered 410"},
		{"unauthorized", status(401), fault.Denied, 0, "answered 401"},
		{"wrong", status(422), fault.Invalid, 0, "answered 422"},
		{"broken", status(500), fault.Internal, 0, "answered 500"},
		{"moved", status(302, "Location", "http://169.254.169.254/"), fault.Invalid, 0, "redirects are not followed"},
		{"moved, keep the method", status(307, "Location", "/again"), fault.Invalid, 0, "redirects are not followed"},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Unavailable, 0, ""},
		{"late", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, fault.Timeout, 0, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newSink(t, row.answer)
			out := openSender(t, "url", server.URL+"/T000/secretpart?token=secretpart", "timeout", "200ms")
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte("{}")})
			if err == nil || fault.KindOf(err) != row.kind || fault.RetryAfter(err) != row.after || !strings.Contains(err.Error(), row.part) {
				t.Fatalf("got %v (%v, after %v), want %v after %v", err, fault.KindOf(err), fault.RetryAfter(err), row.kind, row.after)
			}
			if strings.Contains(err.Error(), "secretpart") {
				t.Errorf("the error shows the address: %v", err)
			}
			if server.n.Load() != 1 {
				t.Errorf("%d requests", server.n.Load())
			}
		})
	}
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func TestSendTargets(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "http://[fe80::1]/", "http://0.0.0.0:1/", "http://[fd00:ec2::254]/",
	} {
		out := openSender(t, "url", url)
		_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create"})
		if fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "allowLinkLocal") {
			t.Errorf("%s: %v", url, err)
		}
	}
	out := openSender(t, "url", "http://0.0.0.0:1/", "allowLinkLocal", "true")
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("allowed and nobody there: %v", err)
	}
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "get"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("unknown operation: %v", err)
	}
}

func TestSendAnswerIsLimited(t *testing.T) {
	t.Parallel()
	server := newSink(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, io.LimitReader(endless{}, 1<<30))
	})
	out := openSender(t, "url", server.URL, "maxResponseSize", "10")
	res, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create"})
	if err != nil || len(res.Data) != 10 || res.Metadata["truncated"] != "true" {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestBothEnds sends from one component to another.
func TestBothEnds(t *testing.T) {
	t.Parallel()
	in := openWebhook(t, newEnv(t, "in"), "secret", "whsec_AAAA")
	rt := run(t, in, ack)
	d, err := Component.Open(t.Context(), newEnv(t, "both"), settings("secret", "whsec_AAAA", "path", "/back", "listen", "127.0.0.1:0",
		"url", "http://"+in.listener.address+"/in", "format", structured))
	if err != nil {
		t.Fatal(err)
	}
	out, ok := d.(bindings.Invoker)
	_, reads := d.(bindings.Reader)
	if !ok || !reads || len(out.Operations()) != 2 {
		t.Fatalf("%T is not both", d)
	}
	request := &bindings.Request{Operation: "create", Data: []byte("{}"), Metadata: map[string]string{"id": "a.1"}}
	for _, want := range []string{"ack", "duplicate"} {
		res, err := out.Invoke(t.Context(), request)
		if err != nil || !strings.Contains(string(res.Data), want) {
			t.Errorf("got %+v, %v, want %s", res, err, want)
		}
	}
	if got := rt.next(t); got.Event.ID() != "a.1" {
		t.Errorf("id %s", got.Event.ID())
	}
	if err := errors.Join(d.Close(t.Context())); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		pairs []string
		want  []string // parts of the messages; none means right
	}{
		{"nothing", nil, nil},
		{"output only", []string{"url", "https://example.com/x"}, nil},
		{"all good", []string{"path", "/a", "signature", "hmac", "secret", "s", "secondarySecret", "t", "replayWindow", "0s", "maxBodySize", "10Mi"}, nil},
		{"path", []string{"path", "a"}, []string{`write "/a"`}},
		{"path with query", []string{"path", "/a?b"}, []string{"plain path"}},
		{"path that climbs", []string{"path", "/a/../b"}, []string{`holds ".."`}},
		{"address", []string{"listen", "3502"}, []string{"host:port"}},
		{"answer", []string{"answer", "later"}, []string{"outcome"}},
		{"secret without use", []string{"signature", "none", "secret", "s"}, []string{"signature is none"}},
		{"no secret", []string{"signature", "github"}, []string{"needs one"}},
		{"only the second", []string{"secondarySecret", "s"}, []string{"without secret"}},
		{"not base64", []string{"secret", "whsec_*", "secondarySecret", "?"}, []string{`"secret": not whsec_`, `"secondarySecret": not whsec_`}},
		{"empty base64", []string{"secret", "whsec_"}, []string{"followed by base64"}},
		{"gitlab signing token", []string{"signature", "gitlab", "secret", "whsec_*"}, []string{"not whsec_"}},
		{"gitlab token", []string{"signature", "gitlab", "secret", "*"}, nil},
		{
			"several at once",
			[]string{"path", "x", "maxConcurrency", "0", "timeout", "0s", "tolerance", "0s"},
			[]string{`"path"`, `"maxConcurrency"`, `"timeout"`, `"tolerance"`},
		},
		{"method", []string{"methods", "post"}, []string{`"post" is not a method`}},
		{"headers", []string{"headers", "X-A", "passHeaders", "a b"}, []string{"name:value", `"a b" is not a header name`}},
		{"url", []string{"url", "ftp://example.com"}, []string{"http or https"}},
		{"url with a password", []string{"url", "https://u:hidden@example.com"}, []string{"without a user name"}},
		{
			"hmac headers",
			[]string{"signature", "hmac", "secret", "s", "signatureHeader", "a b", "timestampHeader", "c d"},
			[]string{`"a b" is not a header name`, `"c d" is not a header name`},
		},
		{"event type", []string{"eventType", "a\nb"}, []string{"control characters"}},
		{"unknown", []string{"signatur", "github"}, []string{"signature"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var lines []string
			for _, p := range Component.Check(settings(row.pairs...)) {
				lines = append(lines, p.String())
			}
			text := strings.Join(lines, "\n")
			if len(row.want) == 0 && text != "" {
				t.Errorf("unexpected: %s", text)
			}
			for _, want := range row.want {
				if !strings.Contains(text, want) {
					t.Errorf("got %q, want a part %q", text, want)
				}
			}
			if strings.Contains(text, "hidden") {
				t.Errorf("a secret is shown: %s", text)
			}
		})
	}
}

func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	in := openWebhook(t, newEnv(t, "in"), "passHeaders", "X-A-*")
	rt := run(t, in, ack)
	var many []string
	for i := range 100 {
		many = append(many, "X-A-"+string(rune('a'+i/26))+string(rune('a'+i%26)), strings.Repeat("v", 10))
	}
	send(t, in, "POST", "/in", "x", append(many, "User-Agent", "")...).want(t, 200, "ack")
	if d := rt.next(t); len(d.Metadata) != maxMetadata || d.Metadata["x-a-aa"] == "" {
		t.Errorf("%d headers are passed, want the first %d", len(d.Metadata), maxMetadata)
	}
	send(t, in, "POST", "/in", "x", "X-A-1", strings.Repeat("v", maxMetadataBytes), "User-Agent", "").want(t, 200, "ack")
	if d := rt.next(t); len(d.Metadata) != 0 {
		t.Errorf("too long a header was passed: %d", len(d.Metadata))
	}
	if diff := cmp.Diff([]string{"create", "post"}, (&sender{}).Operations()); diff != "" {
		t.Error(diff)
	}
}
