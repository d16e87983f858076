package runtime_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/runtime"
)

const ordersSubscription = `[{"pubsubname":"bus","topic":"orders","deadLetterTopic":"graves",
	"routes":{"rules":[{"match":"event.data.total > 100","path":"/large"}],"default":"/small"}},
	{"pubsubname":"bus","topic":"graves","route":"/graves"}]`

func reply(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func TestPublishedEventReachesTheApp(t *testing.T) {
	t.Parallel()
	a := newApp(t, ordersSubscription)
	in := start(t, a, bus)
	in.publish(t, "orders", `{"total": 250.00, "z":1,"a":2}`)
	got := a.next(t, "/large")
	e, err := cloudevents.Scan([]byte(got.body))
	if err != nil || string(e.Data()) != `{"total": 250.00, "z":1,"a":2}` {
		t.Errorf("data is %s, %v", e.Data(), err)
	}
	if ct := got.header.Get("Content-Type"); ct != "application/cloudevents+json" {
		t.Errorf("content type is %q", ct)
	}
	in.publish(t, "orders", `{"total":1}`)
	a.next(t, "/small")
}

func TestDropIsDeadLetteredWithTheReason(t *testing.T) {
	t.Parallel()
	a := newApp(t, ordersSubscription)
	a.answer("/small", reply(`{"status":"DROP"}`))
	in := start(t, a, bus)
	in.publish(t, "orders", `{"total":1}`)
	original := a.next(t, "/small")
	dead := a.next(t, "/graves")
	if dead.body != original.body {
		t.Errorf("dead letter\n%s\ndiffers from the original\n%s", dead.body, original.body)
	}
	for _, key := range []string{"dlqreason", "dlqattempts", "dlqroute", "dlqorigin", "dlqtime"} {
		if dead.header.Get(key) == "" {
			t.Errorf("dead letter has no %s: %v", key, dead.header)
		}
	}
}

func TestReplyOfTheAppIsCarriedOut(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/tick", reply(`{"to":["store"],"operation":"create","metadata":{"fileName":"r.txt"},"data":{"n": 1}}`))
	in := start(t, a, tick+store)
	a.next(t, "/tick")
	eventually(t, "the output is written", func() bool {
		b, err := os.ReadFile(filepath.Join(in.dir, "out", "r.txt"))
		return err == nil && string(b) == `{"n": 1}`
	})
}

func TestStateOfTheReplyIsSaved(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/tick", reply(`{"storeName":"kept","state":[{"key":"k","value":{"n":1}}],"to":["store"],"metadata":{"fileName":"r.txt"},"data":"x"}`))
	in := start(t, a, tick+store+memory)
	a.next(t, "/tick")
	eventually(t, "the output is written", func() bool {
		_, err := os.ReadFile(filepath.Join(in.dir, "out", "r.txt"))
		return err == nil
	})
	if got := in.text(t, "/state/kept/k"); got != `{"n":1}` {
		t.Errorf("saved %q", got)
	}
}

// A store that is not there is a matter of the configuration: the event waits.
func TestReplyWithStateOfNoStore(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/tick", reply(`{"storeName":"s","state":[{"key":"k","value":1}]}`))
	in := start(t, a, tick)
	a.next(t, "/tick")
	a.next(t, "/tick") // tried again
	eventually(t, "the log names the store", func() bool { return strings.Contains(in.log.String(), `find state store \"s\"`) })
}

const memory = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: kept}
spec: {type: state.in-memory, version: v1}
---
`

const tick = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
`

const store = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, value: DIR/out}]}
---
`

const pipeline = `
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bus, topic: in}
  orderingKey: event.data.key
  steps:
    - filter: event.data.n > 0
    - transform: {jq: '{twice: (.data.n * 2), key: .data.key}'}
    - set: {type: '"doubled"', subject: event.data.key}
  to:
    - binding: {name: store, operation: create, metadata: {fileName: '{{ event.subject }}.json'}}
    - pubsub: {name: bus, topic: out}
  deadLetter: {pubsub: bus, topic: graves}
---
`

func TestPipelineNeedsNoApp(t *testing.T) {
	t.Parallel()
	in := start(t, nil, bus+store+pipeline)
	in.publish(t, "in", `{"n":-1,"key":"filtered"}`)
	in.publish(t, "in", `{"n":21,"key":"k1"}`)
	eventually(t, "the output is written", func() bool {
		b, err := os.ReadFile(filepath.Join(in.dir, "out", "k1.json"))
		return err == nil && string(b) == `{"key":"k1","twice":42}`
	})
	if _, err := os.Stat(filepath.Join(in.dir, "out", "filtered.json")); err == nil {
		t.Error("the filter let an event through")
	}
}

func TestPipelineDeliversToTheAppAndDeadLetters(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"out","route":"/out"},{"pubsubname":"bus","topic":"graves","route":"/graves"}]`)
	in := start(t, a, bus+store+pipeline)
	in.publish(t, "in", `{"n":1,"key":"k"}`)
	e, err := cloudevents.Scan([]byte(a.next(t, "/out").body))
	if err != nil || e.Type() != "doubled" || e.Subject() != "k" || string(e.Data()) != `{"key":"k","twice":2}` {
		t.Errorf("got %s, %v", e.JSON(), err)
	}
	in.publish(t, "in", `{"n":"not a number","key":"k"}`)
	if dead := a.next(t, "/graves"); !strings.Contains(dead.body, "not a number") || dead.header.Get("dlqreason") == "" {
		t.Errorf("dead letter %s with %v", dead.body, dead.header)
	}
}

func TestWrongConfigurationEndsTheStartWithEveryError(t *testing.T) {
	t.Parallel()
	_, o := prepare(t, nil, bus+`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: clock}
spec: {type: bindings.crom, version: v1, metadata: []}
---
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bux, topic: t}
  steps: [{filter: "event.type =="}]
  to: [{binding: {name: nobody}}]
`)
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = r.Run(t.Context())
	if err == nil {
		t.Fatal("it started")
	}
	for _, want := range []string{`did you mean "bindings.cron"`, `did you mean "bus"`, "filter", `"nobody"`, "resources.yaml:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestStopLeavesWhatIsNotDone(t *testing.T) {
	t.Parallel()
	a := newApp(t, ordersSubscription)
	release := make(chan struct{})
	a.answer("/small", func(http.ResponseWriter, *http.Request) { <-release })
	in := start(t, a, bus)
	in.publish(t, "orders", `{"total":1}`)
	a.next(t, "/small")
	done := make(chan error, 1)
	go func() { done <- in.end() }()
	select {
	case err := <-done:
		t.Fatalf("it ended under a delivery: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the stop was not clean: %v", err)
	}
}

func TestPipelinesThatGoRoundInCirclesEnd(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"graves","route":"/graves"}]`)
	circle := `
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: NAME}
spec:
  from: {pubsub: bus, topic: FROM}
  to: [{pubsub: {name: bus, topic: TO}}]
  deadLetter: {pubsub: bus, topic: graves}
---
`
	there := strings.NewReplacer("NAME", "there", "FROM", "a", "TO", "b").Replace(circle)
	back := strings.NewReplacer("NAME", "back", "FROM", "b", "TO", "a").Replace(circle)
	in := start(t, a, bus+there+back)
	in.publish(t, "a", `1`)
	if dead := a.next(t, "/graves"); !strings.Contains(dead.header.Get("dlqreason"), "circles") {
		t.Errorf("the reason is %q", dead.header.Get("dlqreason"))
	}
}

func TestMetadataOfAPipelinesTopicIsUsed(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"out","route":"/out","metadata":{"rawPayload":"true"}}]`)
	in := start(t, a, bus+`
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bus, topic: in}
  to: [{pubsub: {name: bus, topic: out, metadata: {partitionKey: '{{ event.data.key }}', colour: blue}}}]
---
`)
	in.publish(t, "in", `{"key":"k1"}`)
	got := a.next(t, "/out")
	if got.header.Get("partitionKey") != "k1" || got.header.Get("colour") != "blue" {
		t.Errorf("metadata did not travel: %v", got.header)
	}
}

// TestPipelineToManyTopicsLosesNone sends many events at once to the topics that
// their data names; one that names none is dead-lettered.
func TestPipelineToManyTopicsLosesNone(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"even","route":"/even"},{"pubsubname":"bus","topic":"odd","route":"/odd"},{"pubsubname":"bus","topic":"graves","route":"/graves"}]`)
	in := start(t, a, bus+`
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bus, topic: in}
  concurrency: 64
  to: [{pubsub: {name: bus, topic: '{{ event.data.to }}'}}]
  deadLetter: {pubsub: bus, topic: graves}
---
`)
	const n = 100
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			in.publish(t, "in", fmt.Sprintf(`{"to":%q,"n":%d}`, []string{"even", "odd"}[i%2], i))
		})
	}
	all.Wait()
	in.publish(t, "in", `{"to":"","n":-1}`)
	seen := map[string]map[string]bool{"/even": {}, "/odd": {}, "/graves": {}}
	for range n + 1 {
		c := <-a.calls
		seen[c.path][c.body] = true
	}
	if len(seen["/even"]) != n/2 || len(seen["/odd"]) != n/2 || len(seen["/graves"]) != 1 {
		t.Errorf("even %d, odd %d, dead letters %d", len(seen["/even"]), len(seen["/odd"]), len(seen["/graves"]))
	}
}

func TestTopicsOfANamespace(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"},{"pubsubname":"plain","topic":"staginglate","route":"/late"}]`)
	folder := strings.ReplaceAll(strings.Replace(plainYAML, "name: bus", "name: plain", 1), "DIR", t.TempDir())
	namespaced := strings.Replace(strings.Replace(folder, "name: plain", "name: bus", 1), "metadata: [", "metadata: [{name: consumerID, value: '{namespace}-g'}, ", 1)
	in, o := prepare(t, a, folder+namespaced)
	o.Namespace = "staging"
	in.run(t, o)
	in.publish(t, "orders", `1`)
	e, err := cloudevents.Scan([]byte(a.next(t, "/orders").body))
	if topic, _ := e.Attr("topic"); err != nil || topic != "orders" {
		t.Errorf("topic of the event is %q, %v", topic, err)
	}
	// Both components use one file: what the namespaced one calls "late" the
	// other one sees under its name on the broker.
	in.publish(t, "late?metadata.delay=10ms", `2`)
	a.next(t, "/late")
}

// Two wildcards that take each other's dead letters do not pass them round for
// ever: the last one keeps the event and says why.
func TestDeadLettersInCircles(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[
		{"pubsubname":"bus","topic":"a*","route":"/drop","deadLetterTopic":"b-dead"},
		{"pubsubname":"bus","topic":"b*","route":"/drop","deadLetterTopic":"a-dead"}]`)
	a.answer("/drop", reply(`{"status":"DROP"}`))
	in := start(t, a, bus)
	in.publish(t, "a1", `1`)
	in.logged(t, 1, "which go round in circles")
	if n := strings.Count(in.log.String(), "event dead-lettered"); n != router.MaxHops+1 {
		t.Errorf("dead-lettered %d times, want %d", n, router.MaxHops+1)
	}
}

// An event that a wildcard fails on goes to the dead letter topic once, though
// the wildcard matches that too.
func TestWildcardSubscription(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders*","route":"/any","deadLetterTopic":"orders-dead"},
		{"pubsubname":"bus","topic":"orders-a","route":"/a"},{"pubsubname":"bus","topic":"orders-dead","route":"/dead"}]`)
	a.answer("/any", reply(`{"status":"DROP"}`))
	in := start(t, a, bus)
	for _, topic := range []string{"orders", "orders-a"} { // the first is matched by nobody
		in.publish(t, topic, `1`)
	}
	got := map[string]int{}
	for range 3 {
		c := <-a.calls
		e, err := cloudevents.Scan([]byte(c.body))
		if topic, _ := e.Attr("topic"); err != nil || topic != "orders-a" {
			t.Errorf("%s got topic %q, %v", c.path, topic, err)
		}
		got[c.path]++
	}
	if got["/any"] != 1 || got["/a"] != 1 || got["/dead"] != 1 {
		t.Errorf("calls %v", got)
	}
	in.publish(t, "orders-b", `2`)
	if e, err := cloudevents.Scan([]byte(a.next(t, "/any").body)); err != nil || string(e.Data()) != `2` {
		t.Errorf("the wildcard got something else: %s, %v", e.Data(), err)
	}
	if text := in.text(t, "/metadata"); !strings.Contains(text, "SUBSCRIBE_WILDCARDS") {
		t.Errorf("the capability is not in the metadata: %s", text)
	}
}
