package contract

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const declaredTwice = `
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: first}
spec: {pubsubname: mem, topic: declared, routes: {default: /first}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: second}
spec: {pubsubname: mem, topic: declared, routes: {default: /second}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: third}
spec: {pubsubname: mem, topic: both, routes: {default: /declared}}
---
`

// everyTopic is every form that an app may answer in.
func everyTopic() []*rtv1.TopicSubscription {
	rules := &rtv1.TopicSubscription{
		PubsubName: "mem", Topic: "rules", DeadLetterTopic: "dead", Metadata: map[string]string{"colour": "blue"},
		Routes: &rtv1.TopicRoutes{Default: "/rest", Rules: []*rtv1.TopicRule{
			{Match: `event.type == "a"`, Path: "/a"}, {Match: ` event.data.n > 3 `, Path: "/big"},
		}},
	}
	return []*rtv1.TopicSubscription{
		rules, topic("mem", "dead", "/dead"),
		{PubsubName: "mem", Topic: "bare"},
		{PubsubName: "mem", Topic: "empty", Routes: &rtv1.TopicRoutes{}},
		{PubsubName: "mem", Topic: "only", DeadLetterTopic: "dead", Routes: &rtv1.TopicRoutes{Rules: []*rtv1.TopicRule{{Match: `event.type == "a"`, Path: "/only"}}}},
		{PubsubName: "mem", Topic: "matchless", Routes: &rtv1.TopicRoutes{Rules: []*rtv1.TopicRule{{Path: "/matchless"}, {Path: "/never"}}}},
		topic("mem", "both", "/app"), topic("mem", "again", "/again-first"), topic("mem", "again", "/again-last"),
		topic("", "x", "/x"), topic("mem", "", "/x"), topic("nope", "x", "/x"), topic("scoped", "gone", "/x"),
	}
}

// Which of two subscriptions to one topic counts: the first that is declared,
// the last that the app names, and the app's rather than a declared one.
func TestGRPCSubscriptions(t *testing.T) {
	t.Parallel()
	a := (&grpcApp{topics: everyTopic()}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses + scoped + declaredTwice})
	doc, err := client.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	want{}.check(t, err)
	got := map[string]string{}
	for _, s := range doc.GetSubscriptions() {
		var text strings.Builder
		text.WriteString(s.GetType().String() + " " + s.GetDeadLetterTopic() + " " + s.GetMetadata()["colour"])
		for _, r := range s.GetRules().GetRules() {
			fmt.Fprintf(&text, " {%s %s}", r.GetMatch(), r.GetPath())
		}
		got[s.GetPubsubName()+"/"+s.GetTopic()] = text.String()
	}
	wanted := map[string]string{
		"mem/rules": `PROGRAMMATIC dead blue {event.type == "a" /a} {event.data.n > 3 /big} { /rest}`,
		"mem/dead":  "PROGRAMMATIC   { /dead}", "mem/bare": "PROGRAMMATIC   { }", "mem/empty": "PROGRAMMATIC   { }",
		"mem/only": `PROGRAMMATIC dead  {event.type == "a" /only}`, "mem/matchless": "PROGRAMMATIC   { /matchless} { /never}",
		"mem/both": "PROGRAMMATIC   { /app}", "mem/again": "PROGRAMMATIC   { /again-last}", "mem/declared": "DECLARATIVE   { /first}",
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
	checkRouting(t, a, client)
	for _, path := range []string{"/never", "/x", "/second", "/declared", "/again-first"} {
		if n := len(a.got("event " + path)); n > 0 {
			t.Errorf("%s was called %d times", path, n)
		}
	}
}

func checkRouting(t *testing.T, a *grpcApp, client rtv1.DaprClient) {
	t.Helper()
	for _, row := range []struct{ name, topic, kind, body, path string }{
		{"first rule that matches", "rules", "a", `{"n":9}`, "/a"},
		{"second rule", "rules", "b", `{"n":9}`, "/big"},
		{"default", "rules", "b", `{"n":1}`, "/rest"},
		{"an expression that fails goes to the dead letter", "rules", "b", `"text"`, "/dead"},
		{"no routes", "bare", "", `1`, ""},
		{"rule without match", "matchless", "", `1`, "/matchless"},
		{"the app's wins", "both", "", `1`, "/app"},
		{"the last of the app's wins", "again", "", `1`, "/again-last"},
		{"the first declared wins", "declared", "", `1`, "/first"},
		{"no rule matches", "only", "b", `"unmatched"`, "/dead"},
	} {
		_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{
			PubsubName: "mem", Topic: row.topic, Data: []byte(row.body), DataContentType: "application/json", Metadata: map[string]string{"cloudevent.type": row.kind},
		})
		want{}.check(t, err)
		eventually(t, row.name, func() bool {
			for _, c := range a.got("event " + row.path) {
				if string(c.event.GetData()) == row.body {
					return true
				}
			}
			return false
		})
	}
}

// What an app may answer beside a list: declared subscriptions work with all.
func TestGRPCDiscovery(t *testing.T) {
	t.Parallel()
	fail := func(c codes.Code, times int) func(int) error {
		return func(n int) error {
			if n > times {
				return nil
			}
			return status.Error(c, "as told")
		}
	}
	for _, row := range []struct {
		name  string
		list  func(int) error
		app   []*rtv1.TopicSubscription
		asked int
		flags []string
	}{
		{"not implemented", nil, nil, 1, nil},
		{"empty", nil, []*rtv1.TopicSubscription{}, 1, nil},
		{"fails twice", fail(codes.Unavailable, 2), []*rtv1.TopicSubscription{topic("mem", "mine", "/mine")}, 3, nil},
		{"fails otherwise", fail(codes.Internal, 1), []*rtv1.TopicSubscription{topic("mem", "mine", "/mine")}, 2, nil},
		{"suppressed", nil, []*rtv1.TopicSubscription{topic("mem", "never", "/never")}, 0, []string{"--disable-init-endpoints", "subscribe"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := (&grpcApp{list: row.list, topics: row.app}).serve(t)
			_, client := startGRPC(t, a, setup{resources: buses + declared, flags: row.flags})
			emit(t, client, "mem", "one", `1`)
			a.wait(t, "event /one", 1)
			if row.list != nil {
				emit(t, client, "mem", "mine", `1`)
				a.wait(t, "event /mine", 1)
			}
			if n := len(a.got("ListTopicSubscriptions")); n != row.asked {
				t.Errorf("asked %d times, want %d", n, row.asked)
			}
		})
	}
}

// The app's port opens late, and the app is replaced by one that wants other
// topics' paths: nothing is lost, nothing is a failed attempt.
func TestGRPCAppComesAndGoes(t *testing.T) {
	t.Parallel()
	letter := topic("db", "a", "/a")
	letter.DeadLetterTopic = "dead"
	a := &grpcApp{topics: []*rtv1.TopicSubscription{letter, topic("db", "dead", "/dead")}}
	port := freePort(t)
	listen := func() (stop func()) {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		return a.serveOn(l)
	}
	sc := start(t, setup{app: port, resources: buses, flags: []string{"--app-protocol", "grpc"}, starting: true})
	client := rtv1.NewDaprClient(sc.dial(t))
	emit(t, client, "db", "a", `1`)
	stop := listen()
	eventually(t, "health", func() bool { return get(t, sc.api+"/healthz").status == 204 })
	emit(t, client, "db", "a", `2`)
	eventually(t, "delivery", func() bool { return len(a.got("event /a")) > 0 })
	stop()
	n := len(a.got("event /a"))
	emit(t, client, "db", "a", `"while it is gone"`)
	t.Cleanup(listen())
	eventually(t, "delivery to the new app", func() bool {
		for _, c := range a.got("event /a")[n:] {
			if string(c.event.GetData()) == `"while it is gone"` {
				return true
			}
		}
		return len(a.got("event /dead")) > 0
	})
	if n := len(a.got("event /dead")); n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

// An app that is not well gets nothing, uses no attempts, and gets what waited
// within two seconds of being well.
func TestGRPCHealthGate(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	letter := topic("mem", "a", "/a")
	letter.DeadLetterTopic = "dead"
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{letter, topic("mem", "dead", "/dead")}, inputs: []string{"c0"}, health: func(int) error {
		if !well.Load() {
			return status.Error(codes.Unavailable, "not yet")
		}
		return nil
	}}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses + crons(""), flags: []string{
		"--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1",
	}})
	emit(t, client, "mem", "a", `1`)
	a.wait(t, "HealthCheck", 3)
	if n := len(a.got("event /a")) + len(a.got("binding c0")) + len(a.got("event /dead")); n > 0 {
		t.Errorf("%d deliveries to an app that is not well", n)
	}
	since := time.Now()
	well.Store(true)
	a.wait(t, "binding c0", 1)
	if late := a.wait(t, "event /a", 1)[0].at.Sub(since); late > 2*time.Second {
		t.Errorf("delivered %s after the app was well", late)
	}
	asked := len(a.got("HealthCheck"))
	well.Store(false)
	a.wait(t, "HealthCheck", asked+2)
	emit(t, client, "mem", "a", `2`)
	a.wait(t, "HealthCheck", asked+4)
	if n := len(a.got("event /a")); n != 1 {
		t.Errorf("delivered %d times to an app that is not well again", n)
	}
	well.Store(true)
	a.wait(t, "event /a", 2)
	if n := len(a.got("event /dead")); n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestGRPCMaxConcurrency(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	gate := make(chan struct{})
	a := &grpcApp{topics: eachBus(topic("", "a", "/a"))}
	a.event = func(context.Context, grpcCall, int) (*rtv1.TopicEventResponse, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-gate
		return said(rtv1.TopicEventResponse_SUCCESS)
	}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses, flags: []string{"--app-max-concurrency", "3"}})
	for range 5 {
		emit(t, client, "mem", "a", `1`)
		emit(t, client, "db", "a", `1`)
	}
	eventually(t, "three calls at once", func() bool { return now.Load() == 3 })
	close(gate)
	a.wait(t, "event /mem/a", 5)
	a.wait(t, "event /db/a", 5)
	if most.Load() != 3 {
		t.Errorf("%d calls at once, want 3", most.Load())
	}
}

// While a shutdown is blocked, events go on; one under way at its end is
// finished.
func TestGRPCBlockShutdown(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "a", "/a"), topic("mem", "b", "/b")}, event: func(_ context.Context, c grpcCall, _ int) (*rtv1.TopicEventResponse, error) {
		if c.event.GetPath() == "/b" {
			<-gate
		}
		return said(rtv1.TopicEventResponse_SUCCESS)
	}}).serve(t)
	sc, client := startGRPC(t, a, setup{resources: buses, flags: []string{"--dapr-block-shutdown-duration", "2s"}})
	began := time.Now()
	sc.signal(t, syscall.SIGTERM)
	eventually(t, "the block", func() bool { return len(sc.log.String()) > 0 && get(t, sc.api+"/healthz").status == 204 })
	emit(t, client, "mem", "a", `1`)
	a.wait(t, "event /a", 1)
	emit(t, client, "mem", "b", `1`)
	a.wait(t, "event /b", 1)
	close(gate)
	if code := sc.exit(t); code != 0 || time.Since(began) < 2*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(began))
	}
}
