package nats

import (
	"context"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

func TestMain(m *testing.M) { os.Exit(natsserver.Main(m)) }

func TestCoreSuite(t *testing.T) { // not parallel: the suite counts goroutines
	coreSuite(t, natsserver.Start(t, natsserver.Options{}).URL())
}

func TestStreamSuite(t *testing.T) {
	streamSuite(t, natsserver.Start(t, natsserver.Options{}).URL())
}

// raw is a client of the server that knows nothing of Penstock.
func raw(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// echo answers requests on a subject with what they say.
func echo(t *testing.T, url string) (subject string) {
	t.Helper()
	subject = conform.Unique(t)
	nc := raw(t, url)
	_, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) })
	if err != nil || nc.Flush() != nil {
		t.Fatal("no echo", err)
	}
	return subject
}

func requests(service string) func(map[string]string) []bindings.Request {
	return func(map[string]string) []bindings.Request {
		return []bindings.Request{
			{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b", "messageId": "1", "partitionKey": "k"}},
			{Operation: "request", Data: []byte("x"), Metadata: map[string]string{"a": "b", "subject": service}},
		}
	}
}

func wrong(more map[string]map[string]string) map[string]map[string]string {
	all := map[string]map[string]string{
		"subject":        {"subject": "a..b"},
		"publishSubject": {"publishSubject": "a.*"},
		"jwt":            {"jwt": "x"},
		"requestTimeout": {"requestTimeout": "0s"},
		"maxPending":     {"maxPending": "0"},
		"backOff":        {"backOff": "soon"},
		"ackWait":        {"ackWait": "1ms"},
	}
	maps.Copy(all, more)
	return all
}

// drivers are the open ones by their subject: core NATS loses what comes before
// somebody listens, and only they know when that is.
type drivers struct {
	mu   sync.Mutex
	open map[string]*core
}

func (ds *drivers) listening(subject string) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.open[subject]
	return d != nil && d.listening.Load() > 0
}

// seen is the component whose drivers are noted.
func (ds *drivers) seen() component.Definition {
	return bindings.Define("nats", Component.About, func(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
		d, err := open(ctx, env, o)
		if err == nil {
			ds.mu.Lock()
			ds.open[o.Subject] = d.(*core)
			ds.mu.Unlock()
		}
		return d, err
	})
}

func coreSuite(t *testing.T, url string) {
	t.Helper()
	service := echo(t, url)
	nc := raw(t, url)
	ds := &drivers{open: map[string]*core{}}
	conform.Binding(t, ds.seen(), conform.BindingSetup{
		Patience: 20 * time.Second, Forgets: true,
		Options: func(t *testing.T) map[string]string {
			subject := conform.Unique(t)
			return map[string]string{"natsURL": url, "subject": subject, "publishSubject": subject + ".out"}
		},
		Wrong: wrong(map[string]map[string]string{
			"durableName": {"durableName": "x"},
			"streamName":  {"streamName": "x"},
		}),
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			var feeding sync.WaitGroup
			t.Cleanup(feeding.Wait)
			feeding.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for !ds.listening(options["subject"]) {
					select {
					case <-t.Context().Done():
						return
					case <-tick.C:
					}
				}
				for _, body := range bodies {
					if err := nc.Publish(options["subject"], []byte(body)); err != nil {
						t.Error(err)
					}
				}
			})
		},
		Requests: requests(service),
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			subject := conform.Unique(t)
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				return nil, err
			}
			defer func() { _ = sub.Unsubscribe() }()
			if err := nc.Flush(); err != nil {
				return nil, err
			}
			_, err = out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"subject": subject}})
			if err != nil {
				return nil, err
			}
			m, err := sub.NextMsg(20 * time.Second)
			if err != nil {
				return nil, err
			}
			return m.Data, nil
		},
		Fails: failures(),
	})
}

func failures() []conform.BindingFailure {
	return []conform.BindingFailure{
		{Name: "nobody answers", Kind: fault.Unavailable, Request: bindings.Request{Operation: "request", Metadata: map[string]string{"subject": "nobody.there"}}},
		{Name: "a wildcard", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Metadata: map[string]string{"subject": "a.>"}}},
		{Name: "too long", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: make([]byte, 9<<20)}},
		{Name: "a request too long", Kind: fault.Invalid, Request: bindings.Request{Operation: "request", Data: make([]byte, 9<<20)}},
	}
}

func streamSuite(t *testing.T, url string) {
	t.Helper()
	service := echo(t, url)
	js, err := jetstream.New(raw(t, url))
	if err != nil {
		t.Fatal(err)
	}
	conform.Binding(t, Component, conform.BindingSetup{
		Patience: 20 * time.Second, KeepsDelay: true,
		Options: func(t *testing.T) map[string]string {
			subject := conform.Unique(t)
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
				Name: subject, Subjects: []string{subject, subject + ".>"}, Storage: jetstream.MemoryStorage,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = js.DeleteStream(context.WithoutCancel(t.Context()), subject) })
			return map[string]string{"natsURL": url, "jetStream": "true", "subject": subject, "publishSubject": subject + ".out"}
		},
		Wrong: wrong(map[string]map[string]string{
			"broadcast":     {"broadcast": "true"},
			"deliverPolicy": {"deliverPolicy": "some"},
			"maxAckPending": {"maxAckPending": "-1"},
			"maxDeliver":    {"maxDeliver": "-1"},
			"replicas":      {"replicas": "-1"},
		}),
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			for _, body := range bodies {
				if _, err := js.Publish(t.Context(), options["subject"], []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
		},
		Requests: requests(service),
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			subject := options["publishSubject"] + "." + conform.Unique(t)
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"subject": subject}})
			if err != nil {
				return nil, err
			}
			s, err := js.Stream(t.Context(), options["subject"])
			if err != nil {
				return nil, err
			}
			m, err := s.GetLastMsgForSubject(t.Context(), subject)
			if err != nil {
				return nil, err
			}
			return m.Data, nil
		},
		Fails: failures(),
	})
}
