package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/test/fake"
)

// policy is what becomes of an event that the app fails. Without retries one
// failed attempt is a dead letter: that is how a row shows that something counted
// as an attempt which should not.
type policy int

const (
	noRetries policy = iota
	someRetries
	noLetters
)

// row is one fault, or a few of a kind.
type row struct {
	name      string
	replicas  int  // at the start; 0 is 1
	many      bool // several replicas read at some time
	rate      int  // events a second; 0 is 100, or 300 at full length
	window    int  // events in flight at most; 0 is window
	policy    policy
	proxied   bool // the broker is behind a proxy
	server    bool // the broker's server is stopped
	removes   bool // the queue, stream or group is taken away
	resources func(*run) string
	do        func(*run)
}

func rows() []row {
	return []row{
		{name: "no fault", do: func(x *run) { x.rules.Exclusive = true; wait(length(3*time.Second, 20*time.Second)) }},
		{name: "app answers 500", policy: noLetters, do: appFails},
		{name: "app down", policy: noLetters, do: appDown},
		{name: "app hangs on one key", window: 4 * window, policy: noLetters, do: appHangs},
		{name: "one poison event", policy: someRetries, do: poison},
		{name: "dead letter target down", resources: letterPipeline, do: letterTargetDown},
		{name: "kill -9", do: kills},
		{name: "kill -9 with an output", resources: sinkPipeline, do: kills},
		{name: "SIGTERM with a backlog", do: terminate},
		{name: "takeover", replicas: 2, many: true, do: takeover},
		{name: "rebalance 1-4-2", many: true, do: rebalance},
		{name: "frozen replica", replicas: 2, many: true, do: frozen},
		{name: "connection cut", proxied: true, do: cut},
		{name: "connection slowed", proxied: true, do: slowed},
		{name: "connection silent", proxied: true, do: silent},
		{name: "connection half-open", proxied: true, do: halfOpen},
		{name: "queue deleted", removes: true, do: deleted},
		{name: "broker restarted 5 s", server: true, do: restarted(length(2*time.Second, 5*time.Second))},
		{name: "broker restarted 60 s", server: true, do: restarted(length(6*time.Second, 60*time.Second))},
		{name: "broker killed", server: true, do: brokerKilled},
	}
}

// appFails: no event has an effect while the app answers 500, so none may come
// twice.
func appFails(x *run) {
	x.rules.Exclusive = true
	x.fault("app answers 500", 0)
	x.app.fails.Store(true)
	wait(length(3*time.Second, 10*time.Second))
	x.app.fails.Store(false)
	x.healed()
	wait(length(time.Second, 5*time.Second))
}

// appDown: what the app had under way when it went may have had its effect.
func appDown(x *run) {
	x.fault("app down", concurrency)
	x.app.down()
	wait(length(3*time.Second, 30*time.Second))
	x.app.up()
	x.healed()
	wait(length(time.Second, 5*time.Second))
}

// appHangs: the other keys go on. What comes for the hung key meanwhile waits in
// the window of the route, which has room for all of it; one that is full holds up
// every key, as it says.
func appHangs(x *run) {
	x.rules.Exclusive = true
	const hung = "k07"
	x.fault("app hangs on "+hung, 0)
	x.app.hang(hung)
	wait(500 * time.Millisecond) // until what was before is done
	promised, done := x.keeper.Counts()
	wait(length(4*time.Second, 15*time.Second))
	promisedThen, doneThen := x.keeper.Counts()
	x.app.release()
	x.healed()
	want := (promisedThen - promised) * (keys - 1) / keys * 9 / 10
	if got := doneThen - done; got < want {
		x.late("%d of the other keys' events were delivered while one key hung, want at least %d", got, want)
	}
	wait(length(time.Second, 5*time.Second))
}

func poison(x *run) {
	x.load.poison.Store(true)
	wait(length(2*time.Second, 10*time.Second))
}

// letterPipeline has a dead letter target that can be down while the broker is
// up.
func letterPipeline(x *run) string {
	return fmt.Sprintf("---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: letters}\nspec:\n  type: bindings.http\n  version: v1\n"+
		"  metadata: [{name: url, value: \"http://127.0.0.1:%d/letters\"}]\n---\n"+
		"apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: load}\nspec:\n  from: {pubsub: bus, topic: %s}\n  concurrency: %d\n"+
		"  maxInFlight: %d\n  retry: {policy: constant, duration: 100ms, maxRetries: 2}\n  to:\n    - app: {route: /load}\n  deadLetter: {binding: letters, operation: create}\n",
		x.sink.port(), x.name, concurrency, window)
}

func letterTargetDown(x *run) {
	x.fault("dead letter target down", 0)
	x.sink.down()
	x.load.poison.Store(true)
	wait(length(3*time.Second, 10*time.Second))
	x.sink.up()
	x.healed()
	wait(length(time.Second, 5*time.Second))
}

// sinkPipeline moves the events to an output binding instead of the app.
func sinkPipeline(x *run) string {
	return fmt.Sprintf("---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: sink}\nspec:\n  type: bindings.http\n  version: v1\n"+
		"  metadata: [{name: url, value: \"http://127.0.0.1:%d/sink\"}]\n---\n"+
		"apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: load}\nspec:\n  from: {pubsub: bus, topic: %s}\n  concurrency: %d\n"+
		"  maxInFlight: %d\n  to:\n    - binding: sink\n      operation: post\n",
		x.sink.port(), x.name, concurrency, window)
}

func kills(x *run) {
	s := x.sidecars[0]
	for range length(4, 20) {
		wait(x.pick(200*time.Millisecond, 800*time.Millisecond))
		x.fault("kill -9", window)
		x.kill(s)
		if x.broker.idle {
			wait(2 * notice)
		}
		x.start(s)
		x.healed()
	}
}

// terminate stops penstock with more waiting than it has under way. Nothing may
// come twice, for each stop is a clean one.
func terminate(x *run) {
	s := x.sidecars[0]
	for range length(2, 5) {
		x.app.work.Store(int64(250 * time.Millisecond))
		wait(length(1500*time.Millisecond, 5*time.Second))
		x.fault("SIGTERM", 0)
		x.stop(s)
		if x.broker.idle {
			wait(2 * notice)
		}
		x.app.work.Store(int64(5 * time.Millisecond))
		x.start(s)
		x.healed()
		x.caughtUp()
	}
}

// takeover lets two sidecars share the work and kills one of them. What it held
// comes to the other within five seconds; calls that it had under way have no
// effect.
func takeover(x *run) {
	x.rules.Takeover = 5 * time.Second
	if !x.broker.alone {
		x.rules.Shared = 2
	}
	x.app.abandons.Store(true)
	x.app.work.Store(int64(length(100*time.Millisecond, 40*time.Millisecond)))
	a, b := x.sidecars[0], x.sidecars[1]
	wait(length(time.Second, 3*time.Second))
	// Where few events are published it may be a while until each has had one.
	eventually(time.Minute, func() bool { return x.keeper.Replicas() >= x.rules.Shared })
	x.retire(a)
	wait(100 * time.Millisecond)
	x.fault("kill -9 of one of two", window)
	x.kill(a)
	x.healed()
	wait(6 * time.Second)
	x.start(a)
	wait(length(2*time.Second, 4*time.Second))
	x.retire(b)
	wait(100 * time.Millisecond)
	x.fault("kill -9 of the other", window)
	x.kill(b)
	x.healed()
	wait(5 * time.Second)
}

// rebalance goes from one replica to four and back to two.
func rebalance(x *run) {
	pause := length(1500*time.Millisecond, 5*time.Second)
	for round := range length(1, 3) {
		for n := len(x.sidecars); n < 4 && round == 0; n++ {
			x.sidecar()
		}
		for _, s := range x.sidecars {
			if !s.Running() {
				x.fault("one more", x.moved())
				x.start(s)
				wait(pause)
			}
		}
		for _, s := range x.sidecars[2:] {
			x.retire(s)
			wait(pause / 2)
			x.fault("one less", x.moved())
			x.stop(s)
			wait(pause / 2)
		}
	}
}

// moved is how many events may come twice when a replica comes or goes: all that
// are in flight, for brokers that move keys between replicas then.
func (x *run) moved() int {
	if x.broker.alone {
		return 0
	}
	return 4 * window
}

// frozen stops one of two replicas for a while and lets it go on, with whatever
// it had under way.
func frozen(x *run) {
	s := x.sidecars[0]
	x.retire(s)
	wait(length(time.Second, 3*time.Second))
	for range length(1, 3) {
		x.fault("frozen", window)
		x.freeze(s)
		wait(length(5*time.Second, 20*time.Second))
		x.fault("thawed", window)
		x.thaw(s)
		x.healed()
		wait(length(2*time.Second, 5*time.Second))
	}
}

// connection is how many events may come twice when the connection to the broker
// breaks: those whose ack is under way, and those that are published again.
const connection = window + publishing

func cut(x *run) {
	for range length(3, 20) {
		x.fault("connection cut", connection)
		x.proxy.Set(fake.Network{Reset: true})
		wait(x.pick(50*time.Millisecond, 500*time.Millisecond))
		x.proxy.Set(fake.Network{})
		x.healed()
		wait(x.pick(500*time.Millisecond, 1500*time.Millisecond))
	}
}

func slowed(x *run) {
	x.fault("connection slowed", connection)
	x.proxy.Set(fake.Network{Latency: 100 * time.Millisecond, Bandwidth: 100_000})
	wait(length(5*time.Second, 30*time.Second))
	x.proxy.Set(fake.Network{})
	x.healed()
	wait(length(time.Second, 5*time.Second))
}

func silent(x *run) {
	x.fault("connection silent", connection)
	x.proxy.Set(fake.Network{Silent: true})
	wait(length(6*time.Second, 60*time.Second))
	x.proxy.Set(fake.Network{})
	x.healed()
	wait(length(2*time.Second, 5*time.Second))
}

// goesOn waits until an event that is published from now on is delivered.
func (x *run) goesOn(limit time.Duration) {
	now := x.keeper.Now()
	eventually(limit, func() bool { return x.keeper.Since(now) })
}

func halfOpen(x *run) {
	for range length(1, 3) {
		x.fault("connection half-open", connection)
		x.proxy.HalfOpen()
		x.healed()
		x.rules.Recovery = 30 * time.Second // until a heartbeat is missed
		x.goesOn(40 * time.Second)
		wait(length(time.Second, 5*time.Second))
	}
}

// deleted takes the queue away. What was in it is gone, and so may be what was
// published until it was there again.
func deleted(x *run) {
	ctx, cancel := context.WithTimeout(x.Context(), time.Minute)
	defer cancel()
	promised, _ := x.keeper.Counts()
	x.fault("queue deleted", promised) // a group that is made anew may begin at the beginning
	x.keeper.Fault(Entry{What: Deleted})
	if err := x.broker.remove(ctx, x); err != nil {
		x.Fatal(err)
	}
	if !eventually(30*time.Second, func() bool { ok, err := x.broker.there(ctx, x); return ok && err == nil }) {
		x.problem("what was deleted did not come back within 30s")
	}
	x.keeper.Fault(Entry{What: Recreated})
	x.healed()
	wait(length(3*time.Second, 10*time.Second))
}

func restarted(away time.Duration) func(*run) {
	return func(x *run) {
		x.fault("broker stopped", connection)
		x.broker.server.Stop()
		wait(away)
		x.broker.server.Start()
		x.healed()
		wait(length(2*time.Second, 5*time.Second))
	}
}

func brokerKilled(x *run) {
	for range length(1, 3) {
		x.fault("broker killed", connection)
		x.broker.server.Kill()
		wait(time.Second)
		x.broker.server.Start()
		x.healed()
		wait(length(3*time.Second, 5*time.Second))
	}
}
