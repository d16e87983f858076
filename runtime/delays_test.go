package runtime_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/pubsub/sqlite"
)

// plainBus keeps its messages in a file, but has no features: it neither delays
// nor expires them. While there is a file "down" beside it, publishing fails.
var plainBus = pubsub.Define("plain", component.About{}, func(ctx context.Context, env component.Env, o plain) (pubsub.Driver, error) {
	d, err := sqlite.Component.Open(ctx, env, []config.Item{{Name: "connectionString", Value: filepath.Join(o.Folder, "plain.db")}})
	if err != nil {
		return nil, err
	}
	return plainDriver{d.(pubsub.Driver), o}, nil
})

type plain struct {
	Folder string `meta:"folder,required" doc:"Where the file is."`
}

type plainDriver struct {
	pubsub.Driver
	o plain
}

func (p plainDriver) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	for _, m := range batch {
		if !m.DeliverAt.IsZero() {
			return fault.New(fault.Internal, "a delayed message came to a broker that cannot delay")
		}
	}
	if _, err := os.Stat(filepath.Join(p.o.Folder, "down")); err == nil {
		return fault.New(fault.Unavailable, "the broker is down")
	}
	return p.Driver.Publish(ctx, topic, batch)
}

const plainYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.plain, version: v1, metadata: [{name: folder, value: DIR}]}
---
`

const lateSubscription = `[{"pubsubname":"bus","topic":"late","route":"/late"},
	{"pubsubname":"bus","topic":"raw","route":"/raw","metadata":{"rawPayload":"true"}}]`

func TestDelayOnABrokerThatCannot(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in := start(t, a, plainYAML)
	began := time.Now()
	in.publish(t, "late?metadata.delay=700ms", `{"n":2}`)
	in.publish(t, "late?metadata.deliverAt=2001-01-01T00:00:00Z", `{"n":1}`)
	for _, want := range []string{`{"n":1}`, `{"n":2}`} {
		e, err := cloudevents.Scan([]byte(a.next(t, "/late").body))
		if err != nil || string(e.Data()) != want {
			t.Fatalf("data is %s, %v, want %s", e.Data(), err, want)
		}
	}
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("it came after %s", took)
	}
	if status, text := in.post(t, "/publish/bus/late?metadata.delay=soon", `1`); status != http.StatusBadRequest || !strings.Contains(text, "30s") {
		t.Errorf("a delay that is none: %d %s", status, text)
	}
}

func TestDelayKeepsBytesAndMetadata(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in := start(t, a, plainYAML)
	const body = "\x00\xff{not json"
	in.publish(t, "raw?metadata.delay=50ms&metadata.rawPayload=true&metadata.Colour=blue&metadata.partitionKey=k", body)
	got := a.next(t, "/raw")
	if !strings.Contains(got.body, base64.StdEncoding.EncodeToString([]byte(body))) {
		t.Errorf("body: %s", got.body)
	}
	sent := map[string]string{"Colour": "blue", "partitionKey": "k", "delay": "50ms"}
	for name, want := range sent {
		if v := got.header.Get(name); v != want {
			t.Errorf("metadata %s is %q, want %q", name, v, want)
		}
	}
	for _, name := range []string{"topic", "expires", "key"} { // what the queue adds for itself
		if v := got.header.Get(name); v != "" {
			t.Errorf("metadata %s is %q, want none", name, v)
		}
	}
}

func TestDelayOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in, o := prepare(t, a, plainYAML)
	in.run(t, o)
	in.publish(t, "late?metadata.delay=1s", `"kept"`)
	if err := in.end(); err != nil {
		t.Fatal(err)
	}
	again, o2 := prepare(t, a, strings.ReplaceAll(plainYAML, "DIR", in.dir))
	o2.DataDir = o.DataDir
	again.run(t, o2)
	if got := a.next(t, "/late"); !strings.Contains(got.body, `"kept"`) {
		t.Errorf("body: %s", got.body)
	}
}

func TestDelayWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in := start(t, a, plainYAML)
	in.write(t, "down", "")
	const n = 20
	entries := make([]string, n)
	want := make([]string, n)
	for i := range entries {
		want[i] = fmt.Sprintf(`{"n":%d}`, i)
		entries[i] = fmt.Sprintf(`{"entryId":"%d","event":%s,"contentType":"application/json","metadata":{"delay":"10ms","partitionKey":"k"}}`, i, want[i])
	}
	// One entry has no delay, and fails by itself.
	body := "[" + strings.Join(entries, ",") + `,{"entryId":"now","event":1,"contentType":"application/json"}]`
	status, text := in.post(t, "/publish/bulk/bus/late", body)
	if status != http.StatusInternalServerError || !strings.Contains(text, `"now"`) || strings.Contains(text, `"entryId":"0"`) {
		t.Fatalf("bulk: %d %s", status, text)
	}
	in.logged(t, 1, "the broker is down")
	if err := os.Remove(filepath.Join(in.dir, "down")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range want {
		e, err := cloudevents.Scan([]byte(a.next(t, "/late").body))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(e.Data()))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

func TestDelayCannotBeNamed(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in := start(t, a, plainYAML)
	in.publish(t, "late?metadata.delay=10ms", `1`)
	a.next(t, "/late")
	if status, text := in.post(t, "/publish/delay/shop%2Fbus", `1`); status != http.StatusNotFound {
		t.Errorf("publish to the queue: %d %s", status, text)
	}
	if text := in.text(t, "/metadata"); strings.Contains(text, `"delay"`) {
		t.Errorf("it is in the metadata: %s", text)
	}
}
