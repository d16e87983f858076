package contract

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A subscription may say how many events are under way at once.
func TestConcurrencyOfASubscription(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, bus string) {
		var inside, most atomic.Int64
		gate := make(chan struct{})
		a := &app{subscribe: fmt.Sprintf(`[{"pubsubname":%q,"topic":"few","route":"/few","metadata":{"concurrency":"2"}}]`, bus)}
		a.reply = func(call, int) answer {
			defer inside.Add(-1)
			if now := inside.Add(1); now > most.Load() {
				most.Store(now)
			}
			<-gate
			return answer{}
		}
		a.serve(t)
		sc := start(t, setup{app: a.port, resources: buses})
		for i := range 6 {
			sc.publish(t, bus+"/few", fmt.Sprint(i))
		}
		a.wait(t, "/few", 2)
		close(gate)
		a.wait(t, "/few", 6)
		if most.Load() != 2 {
			t.Errorf("%d under way at once, want 2", most.Load())
		}
	})
}

// It may say which events keep their order, and how often each is tried; the app
// may say when.
func TestOrderAndRetryOfASubscription(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, bus string) {
		a := &app{subscribe: fmt.Sprintf(`[
			{"pubsubname":%[1]q,"topic":"keyed","route":"/keyed","metadata":{"orderingKey":"event.data.k"}},
			{"pubsubname":%[1]q,"topic":"tried","route":"/tried","deadLetterTopic":"dead","metadata":{"maxRetries":"2","retryPolicy":"constant","retryDuration":"10ms"}},
			{"pubsubname":%[1]q,"topic":"dead","route":"/dead"},
			{"pubsubname":%[1]q,"topic":"later","route":"/later"}]`, bus)}
		a.reply = func(c call, n int) answer {
			switch {
			case c.path == "/tried":
				return answer{status: 500}
			case n == 1 && c.path != "/dead":
				return answer{body: `{"status":"RETRY","retryAfter":"700ms"}`}
			}
			return answer{}
		}
		a.serve(t)
		sc := start(t, setup{app: a.port, resources: buses})
		for i := range 3 {
			sc.publish(t, bus+"/keyed", fmt.Sprintf(`{"k":"a","n":%d}`, i))
		}
		var got []string
		for _, c := range a.wait(t, "/keyed", 4) {
			got = append(got, c.data(t))
		}
		want := []string{`{"k":"a","n":0}`, `{"k":"a","n":0}`, `{"k":"a","n":1}`, `{"k":"a","n":2}`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("order of a key (-want +got):\n%s", diff)
		}
		sc.publish(t, bus+"/tried", `1`)
		a.wait(t, "/dead", 1)
		if n := len(a.got("/tried")); n != 3 {
			t.Errorf("tried %d times, want 3", n)
		}
		sc.publish(t, bus+"/later", `1`)
		calls := a.wait(t, "/later", 2)
		if wait := calls[1].at.Sub(calls[0].at); wait < 700*time.Millisecond {
			t.Errorf("tried again after %v, the app asked for 700ms", wait)
		}
	})
}

// What the metadata of a subscription says wrong is told, and the others run.
func TestFlowThatIsWrong(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[
		{"pubsubname":"mem","topic":"a","route":"/a","metadata":{"concurrency":"lots"}},
		{"pubsubname":"mem","topic":"b","route":"/b","metadata":{"concurrency":"parallel"}}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses, starting: true})
	sc.logged(t, regexp.MustCompile(`Route not started.*mem/a.*read metadata concurrency.*lots.*want a whole number from 1 to 1024`))
	sc.publish(t, "mem/b", `1`)
	a.wait(t, "/b", 1)
}

// An event that was published twice is delivered once, also by another process;
// one that failed is not taken for delivered.
func TestDedupe(t *testing.T) {
	t.Parallel()
	a := &app{subscribe: `[
		{"pubsubname":"db","topic":"a","route":"/a","metadata":{"dedupe":"true"}},
		{"pubsubname":"db","topic":"b","route":"/b","deadLetterTopic":"dead","metadata":{"dedupeKey":"event.data.order"}},
		{"pubsubname":"db","topic":"dead","route":"/dead"}]`}
	a.reply = func(c call, n int) answer {
		if c.path == "/b" && n == 1 {
			return answer{body: `{"status":"DROP"}`}
		}
		return answer{}
	}
	a.serve(t)
	dir := t.TempDir()
	sc := start(t, setup{app: a.port, resources: buses, dir: dir})
	once := func(id string) { sc.publishAs(t, "db/a?metadata.cloudevent.id="+id, "application/json", `1`) }
	once("1")
	once("1")
	once("2")
	a.wait(t, "/a", 2)
	sc.publish(t, "db/b", `{"order":7}`)
	a.wait(t, "/dead", 1)
	sc.publish(t, "db/b", `{"order":7}`)
	a.wait(t, "/b", 2)
	sc.publish(t, "db/b", `{"order":7,"again":true}`)
	sc.signal(t, syscall.SIGTERM)
	if code := sc.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	sc = start(t, setup{app: a.port, resources: buses, dir: dir})
	once("1")
	once("3")
	sc.publish(t, "db/b", `{"order":8}`)
	a.wait(t, "/a", 3)
	a.wait(t, "/b", 3)
	var ids []string
	for _, c := range a.got("/a") {
		ids = append(ids, string(c.event(t)["id"]))
	}
	if len(ids) != 3 {
		t.Errorf("delivered %v", ids)
	}
	if n := len(a.got("/b")); n != 3 {
		t.Errorf("/b was called %d times", n)
	}
}

// A route that is paused stays so while a reload replaces it.
func TestPauseOutlivesAReload(t *testing.T) {
	t.Parallel()
	a := (&app{}).serve(t)
	const one = `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: one}
spec: {pubsubname: mem, topic: one, routes: {default: /PATH}}
---
`
	dir := t.TempDir()
	sc := start(t, setup{app: a.port, dir: dir, resources: buses + strings.ReplaceAll(one, "PATH", "first")})
	own := sc.api + "-penstock/routes"
	if got := send(t, request{url: own + "/pause/subscription/mem/one"}); got.status != 204 {
		t.Fatalf("pause: %d %s", got.status, got.body)
	}
	write(t, filepath.Join(dir, "resources", "all.yaml"), strings.ReplaceAll(buses+strings.ReplaceAll(one, "PATH", "second"), "DIR", dir))
	sc.logged(t, regexp.MustCompile(`Configuration reloaded`))
	sc.publish(t, "mem/one", `1`)
	eventually(t, "the route holds the event", func() bool {
		return regexp.MustCompile(`"name":"subscription/mem/one","state":"paused".*"held":1`).MatchString(get(t, own).body)
	})
	if n := len(a.got("/first")) + len(a.got("/second")); n != 0 {
		t.Errorf("a paused route delivered %d events", n)
	}
	if got := send(t, request{url: own + "/resume/subscription/mem/one"}); got.status != 204 {
		t.Fatalf("resume: %d %s", got.status, got.body)
	}
	a.wait(t, "/second", 1)
}
