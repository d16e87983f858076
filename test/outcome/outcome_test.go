package outcome

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/runtime"
)

// way is how events reach the app.
type way struct {
	name string
	rows []row
	// app starts the app and returns its port and protocol; port 0 is none.
	app func(*testing.T, *calls) (port int, protocol string)
	// bulk asks for bulk deliveries, of one event each.
	bulk bool
	// stream opens a stream for each topic once penstock runs; nil otherwise.
	stream func(*testing.T, *calls, string, []string)
}

func ways() []way {
	overHTTP := func(bulk bool) func(*testing.T, *calls) (int, string) {
		return func(t *testing.T, c *calls) (int, string) { return httpApp(t, c, bulk), "http" }
	}
	overGRPC := func(t *testing.T, c *calls) (int, string) { return startGRPCApp(t, c), "grpc" }
	return []way{
		{name: "HTTP", rows: httpRows(), app: overHTTP(false)},
		{name: "gRPC", rows: grpcRows(), app: overGRPC},
		{name: "bulk HTTP", rows: bulkHTTPRows(), app: overHTTP(true), bulk: true},
		{name: "bulk gRPC", rows: bulkGRPCRows(), app: overGRPC, bulk: true},
		{name: "stream", rows: streamRows(), app: func(*testing.T, *calls) (int, string) { return 0, "http" }, stream: openStreams},
	}
}

// TestOutcomes is the table: what the source was told, how often the app was
// called, and what the dead letter says.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		for _, bus := range []string{"memory", "sqlite"} {
			t.Run(w.name+"/"+bus, func(t *testing.T) {
				t.Parallel()
				w.try(t, bus)
			})
		}
	}
}

// try publishes one event for each row to a topic without and to one with a dead
// letter topic.
func (w way) try(t *testing.T, bus string) {
	c, l := newCalls(w.rows), newLedger()
	port, protocol := w.app(t, c)
	var topics []string
	for i := range w.rows {
		topics = append(topics, fmt.Sprintf("plain-%d", i), fmt.Sprintf("letter-%d", i))
	}
	api := start(t, l, w.resources(bus, topics), port, protocol)
	if w.stream != nil {
		w.stream(t, c, api.grpc, topics)
	}
	for _, topic := range topics {
		publish(t, api.http, topic)
	}
	for i, r := range w.rows {
		for _, letters := range []bool{false, true} {
			topic := fmt.Sprintf("plain-%d", i)
			name := r.name + "/plain"
			if letters {
				topic, name = fmt.Sprintf("letter-%d", i), r.name+"/dead letter topic"
			}
			t.Run(name, func(t *testing.T) { check(t, r.want, topic, letters, c, l) })
		}
	}
}

// check waits until the source has heard the last word, and then looks at all.
func check(t *testing.T, w want, topic string, letters bool, c *calls, l *ledger) {
	t.Helper()
	told, called := []string{"ack"}, 1
	switch {
	case w.verdict == "leave":
		told, called = []string{"leave", "ack"}, 2
	case w.verdict == "retry" && !letters:
		told, called = []string{"retry", "ack"}, 2
	}
	heard := func() []string { return slices.CompactFunc(l.toldOf(topic), bothLeave) }
	eventually(t, func() bool { return len(heard()) >= len(told) })
	if diff := cmp.Diff(told, heard()); diff != "" {
		t.Errorf("the source was told (-want +got):\n%s", diff)
	}
	if n := c.of("/" + topic); n != called {
		t.Errorf("the app was called %d times, want %d", n, called)
	}
	letter, buried := l.letterOf(topic)
	if wanted := letters && (w.verdict == "drop" || w.verdict == "retry"); buried != wanted {
		t.Fatalf("dead-lettered: %t, want %t", buried, wanted)
	}
	if !buried {
		return
	}
	if !strings.Contains(letter.Metadata["dlqreason"], w.reason) {
		t.Errorf("reason %q, want %q in it", letter.Metadata["dlqreason"], w.reason)
	}
	if kind := letter.Metadata["dlqkind"]; w.kind != "" && kind != w.kind {
		t.Errorf("kind %q, want %q", kind, w.kind)
	}
	if letter.Metadata["dlqattempts"] != "1" || !strings.Contains(letter.Metadata["dlqorigin"], topic) ||
		!strings.Contains(letter.Metadata["dlqroute"], topic) || letter.Metadata["dlqtime"] == "" {
		t.Errorf("dead letter says %v", letter.Metadata)
	}
	if !strings.Contains(string(letter.Data), `"data":{"of": "`+topic+`"}`) {
		t.Errorf("dead letter holds %s", letter.Data)
	}
}

// bothLeave makes one of several leaves: a stream that ends may be handed the
// event once more before its route is gone, which is no attempt and no call.
func bothLeave(a, b string) bool { return a == "leave" && b == "leave" }

// resources declares the broker, and the subscriptions unless they are opened as
// streams.
func (w way) resources(bus string, topics []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec: {type: pubsub.%s, version: v1}\n", bus)
	if w.stream != nil {
		return b.String()
	}
	for _, topic := range topics {
		fmt.Fprintf(&b, "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: %[1]s}\nspec:\n"+
			"  pubsubname: bus\n  topic: %[1]s\n  routes: {default: /%[1]s}\n", topic)
		if strings.HasPrefix(topic, "letter") {
			fmt.Fprintf(&b, "  deadLetterTopic: dead-%s\n", topic)
		}
		if w.bulk {
			b.WriteString("  bulkSubscribe: {enabled: true, maxMessagesCount: 1, maxAwaitDurationMs: 10}\n")
		}
	}
	return b.String()
}

// addresses are those of a running instance.
type addresses struct{ http, grpc string }

// start runs an instance until the test ends and waits until it is ready.
func start(t *testing.T, l *ledger, resources string, port int, protocol string) addresses {
	t.Helper()
	dir := t.TempDir()
	folder := filepath.Join(dir, "resources")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(resources), 0o600); err != nil {
		t.Fatal(err)
	}
	web, rpc := listen(t), listen(t)
	rt, err := runtime.New(runtime.Options{
		AppID: "outcome", DataDir: dir, Resources: []string{folder}, Components: l.components(),
		Listeners: []net.Listener{web}, GRPC: []net.Listener{rpc}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		App: runtime.AppOptions{Port: port, Protocol: protocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := rt.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	a := addresses{"http://" + web.Addr().String(), rpc.Addr().String()}
	eventually(t, func() bool {
		resp, err := http.Get(a.http + "/v1.0/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
	return a
}

func publish(t *testing.T, api, topic string) {
	t.Helper()
	resp, err := http.Post(api+"/v1.0/publish/bus/"+topic, "application/json", strings.NewReader(`{"of": "`+topic+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("publish: %s %s", resp.Status, body)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatal("not so within a minute")
		}
	}
}
