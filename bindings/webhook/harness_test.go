package webhook

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

const soon = time.Minute // what a test waits for what must happen

// env is a process's surroundings for components of this test.
func newEnv(t *testing.T, name string) component.Env {
	t.Helper()
	return component.Env{
		AppID: "test", Name: name, DataDir: t.TempDir(), Shared: &component.Shared{},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// settings makes metadata of name, value pairs.
func settings(pairs ...string) []config.Item {
	var items []config.Item
	for i := 0; i < len(pairs); i += 2 {
		items = append(items, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return items
}

// openWebhook opens an input, on a port of its own unless the settings say
// otherwise.
func openWebhook(t *testing.T, env component.Env, pairs ...string) *receiver {
	t.Helper()
	d, err := Component.Open(t.Context(), env, settings(append([]string{"listen", "127.0.0.1:0"}, pairs...)...))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	r := d.(*receiver)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
		defer cancel()
		_ = r.Close(ctx)
	})
	return r
}

// route is what reads a webhook: it settles every delivery with decide, or
// keeps it when decide is nil.
type route struct {
	got    chan *cloudevents.Delivery
	stop   func() // ends Read and waits
	decide func(*cloudevents.Delivery) cloudevents.Outcome
}

func ack(*cloudevents.Delivery) cloudevents.Outcome { return cloudevents.Acked() }

func run(t *testing.T, r *receiver, decide func(*cloudevents.Delivery) cloudevents.Outcome) *route {
	t.Helper()
	rt := &route{got: make(chan *cloudevents.Delivery, 4096), decide: decide}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := r.Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
			rt.got <- d
			if rt.decide != nil {
				d.Settle(rt.decide(d))
			}
			return nil
		})
		if err != nil {
			t.Errorf("read: %v", err)
		}
	})
	rt.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(rt.stop)
	waitFor(t, "the webhook to be ready", r.hook.ready)
	return rt
}

// next returns the next delivery.
func (rt *route) next(t *testing.T) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-rt.got:
		return d
	case <-time.After(soon):
		t.Fatal("no delivery came")
		return nil
	}
}

// none fails when there is a delivery nobody asked for.
func (rt *route) none(t *testing.T) {
	t.Helper()
	select {
	case d := <-rt.got:
		t.Fatalf("unexpected delivery of %s", d.Event.ID())
	default:
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(soon)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", soon, what)
		}
	}
}

// reply is what a sender sees.
type reply struct {
	status int
	body   string
	header http.Header
}

// send makes a request of its own connection. Header is name, value pairs.
func send(t *testing.T, r *receiver, method, path, body string, header ...string) reply {
	t.Helper()
	return sendBody(t, r, method, path, strings.NewReader(body), header...)
}

func sendBody(t *testing.T, r *receiver, method, path string, body io.Reader, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.listener.address+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return reply{}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: read answer: %v", method, path, err)
	}
	return reply{res.StatusCode, string(text), res.Header}
}

func (r reply) want(t *testing.T, status int, part string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.body, part) {
		t.Errorf("answer %d %q, want %d with %q", r.status, r.body, status, part)
	}
	late := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
	if after := r.header.Get("Retry-After"); late != (after != "") {
		t.Errorf("answer %d with Retry-After %q", r.status, after)
	}
}

// attrs returns the attributes that do not change from run to run.
func attrs(d *cloudevents.Delivery) map[string]string {
	m := map[string]string{}
	for name, value := range d.Event.Attrs() {
		if name != "time" && name != "specversion" {
			m[name] = value
		}
	}
	return m
}
