package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/process"
)

// What a run is made of: events under way at once in a sidecar, events that it
// has taken from the broker, and events that are published at once.
const (
	concurrency = 16
	window      = 64
	publishing  = keys
)

// run is one row with one broker.
type run struct {
	*testing.T
	keeper *Keeper
	broker *broker
	row    *row
	seed   uint64
	rng    *rand.Rand
	dir    string
	name   string  // of the topic, and in other names of this run
	addr   string  // of the broker, as penstock sees it
	proxy  network // in front of the broker, where the row wants one
	app    *app
	sink   *app
	load   *load
	rules  Rules
	path   string // of the program
	env    []string
	// patience is how long the end may take after the load.
	patience time.Duration

	mu       sync.Mutex
	sidecars []*process.Sidecar
	up       int                // sidecars that run
	quiet    time.Duration      // since when none does
	live     []*process.Sidecar // those that publishes go to
	wrong    []string           // what a row found itself
	slow     []string           // of that, what a busy machine excuses
	polling  sync.WaitGroup
	settled  map[string]bool      // what the broker was seen to have acknowledged
	hidden   map[string]time.Time // since when it does not show what it confirmed
	held     int                  // what it was last counted to hold
	stall    time.Duration        // how long this machine did nothing, at most
	crowd    float64              // how many threads wanted each of its processors, on average
}

// seedOf makes the seed of a row from that of the whole.
func seedOf(name string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, *seed, name)
	return h.Sum64()
}

func newRun(t *testing.T, b *broker, r *row) *run {
	t.Helper()
	k := NewKeeper()
	x := &run{
		T: t, keeper: k, broker: b, row: r, seed: seedOf(b.name + r.name), dir: t.TempDir(), path: binary, patience: 2 * time.Minute,
		app: newApp(t, k), sink: newApp(t, k), settled: map[string]bool{}, hidden: map[string]time.Time{}, held: -1,
	}
	x.rng = rand.New(rand.NewPCG(x.seed, 0))
	x.name = fmt.Sprintf("ledger-%s-%08x", strings.ReplaceAll(r.name, " ", "-"), rand.Uint32())
	x.rules = Rules{Order: b.ordered(r), Watched: b.watch != nil, Recovery: length(10*time.Second, 10*time.Second)}
	if b.addr != nil {
		x.addr = b.addr()
	}
	x.load = &load{keeper: k, rate: cmp.Or(r.rate, b.rate, length(100, 300)), url: x.publishURL}
	t.Cleanup(func() {
		for _, s := range x.sidecars {
			s.Kill()
			if t.Failed() {
				log := s.Log()
				t.Logf("the end of penstock's log:\n%s", log[max(0, len(log)-3000):])
			}
		}
	})
	return x
}

// pick is one of the values between two limits, by the seed.
func (x *run) pick(low, high time.Duration) time.Duration {
	return low + time.Duration(x.rng.Int64N(int64(high-low)))
}

// resources are the broker and the subscriptions.
func (x *run) resources() string {
	var b strings.Builder
	b.WriteString(x.broker.resource(x))
	if x.row.resources != nil {
		b.WriteString(x.row.resources(x))
		return b.String()
	}
	fmt.Fprintf(&b, "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: load}\nspec:\n  pubsubname: bus\n  topic: %s\n"+
		"  routes: {default: /load}\n  concurrency: %d\n  maxInFlight: %d\n", x.name, concurrency, cmp.Or(x.row.window, window))
	if x.row.policy != noLetters {
		fmt.Fprintf(&b, "  deadLetterTopic: %s-dead\n", x.name)
	}
	if x.row.policy == someRetries {
		b.WriteString("  retry: {policy: constant, duration: 100ms, maxRetries: 2}\n")
	}
	if x.row.policy != noLetters {
		fmt.Fprintf(&b, "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: dead}\nspec:\n  pubsubname: bus\n  topic: %s-dead\n  routes: {default: /dead}\n", x.name)
	}
	return b.String()
}

// sidecar makes one more sidecar of the app; the caller starts it.
func (x *run) sidecar() *process.Sidecar {
	x.Helper()
	n := len(x.sidecars)
	resources, data := filepath.Join(x.dir, "resources"), filepath.Join(x.dir, fmt.Sprintf("data-%d", n))
	if n == 0 {
		if err := os.Mkdir(resources, 0o700); err != nil {
			x.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(resources, "all.yaml"), []byte(x.resources()), 0o600); err != nil {
			x.Fatal(err)
		}
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		x.Fatal(err)
	}
	s := &process.Sidecar{Path: x.path, Port: freePort(x.T), Env: append(x.env, "XDG_CACHE_HOME="+x.dir)}
	s.Args = []string{
		"serve", "--app-id", x.name, "--app-port", fmt.Sprint(x.app.port()), "--dapr-http-port", fmt.Sprint(s.Port), "--dapr-grpc-port", "0",
		"--resources-path", resources, "--data-dir", data, "--dapr-graceful-shutdown-seconds", "10",
	}
	x.sidecars = append(x.sidecars, s)
	return s
}

// start starts a sidecar and sends publishes to it.
func (x *run) start(s *process.Sidecar) {
	x.Helper()
	x.count(1)
	if err := s.Start(2 * time.Minute); err != nil {
		x.Fatal(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.live = append(x.live, s)
}

// retire sends no more publishes to a sidecar.
func (x *run) retire(s *process.Sidecar) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, l := range x.live {
		if l == s && len(x.live) > 1 {
			x.live = append(x.live[:i:i], x.live[i+1:]...)
			return
		}
	}
}

// stop ends a sidecar with SIGTERM, which it must do cleanly.
func (x *run) stop(s *process.Sidecar) {
	if err := s.Stop(time.Minute); err != nil {
		x.problem("a stop was not clean: %v", err)
	}
	x.count(-1)
}

// kill ends a sidecar with SIGKILL.
func (x *run) kill(s *process.Sidecar) {
	s.Kill()
	x.count(-1)
}

func (x *run) count(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.up += n
	x.quiet = x.keeper.Now()
}

// nobody tells whether no sidecar has been running since before a time, and long
// enough for the broker to notice.
func (x *run) nobody(since time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.up == 0 && x.quiet+notice < since
}

// notice is how long a broker may take to notice that a process has gone.
const notice = 300 * time.Millisecond

// group is the consumer group of the row's subscription or pipeline.
func (x *run) group() string {
	if x.row.resources != nil {
		return x.name + "-load"
	}
	return x.name
}

func (x *run) publishURL(key int) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.live[key%len(x.live)].API("/publish/bus/" + x.name)
}

// problem is something that only the row can see.
func (x *run) problem(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}

// late is a problem that a machine has which does too much at once.
func (x *run) late(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.slow = append(x.slow, fmt.Sprintf(format, args...))
}

// fault writes down that something breaks, and how many events are in flight
// where it does.
func (x *run) fault(note string, limit int) {
	x.keeper.Fault(Entry{What: Fault, Note: note, Limit: limit})
}

func (x *run) healed() { x.keeper.Fault(Entry{What: Healed}) }

// caughtUp waits until as much is done as was promised when it began, so that what
// piled up is not counted to what comes next.
func (x *run) caughtUp() {
	promised, _ := x.keeper.Counts()
	eventually(time.Minute, func() bool {
		_, done := x.keeper.Counts()
		return done >= promised
	})
}

// play is the whole of a run. What the books say, and the row, is in wrong and
// slow then.
func (x *run) play() *Report {
	x.Helper()
	replicas := max(1, x.row.replicas)
	for range replicas {
		x.start(x.sidecar())
	}
	ctx, cancel := context.WithCancel(x.Context())
	defer cancel()
	x.polling.Go(func() { x.poll(ctx) })
	x.polling.Go(func() { x.feel(ctx) })
	x.load.start(ctx, x.seed)
	wait(length(time.Second, 3*time.Second))
	x.row.do(x)
	wait(length(500*time.Millisecond, 2*time.Second))
	x.load.stop()
	if eventually(x.patience, func() bool { return x.keeper.Awaited() == 0 }) {
		x.keeper.Fault(Entry{What: Drained})
	}
	wait(length(300*time.Millisecond, 3*time.Second)) // for what comes once more
	if !x.broker.idle {
		// What a killed process did not acknowledge comes again when its lease ends.
		eventually(min(x.patience, 30*time.Second), x.nothingHeld)
	}
	for _, s := range x.sidecars {
		if s.Running() {
			x.stop(s)
		}
	}
	eventually(min(x.patience, 30*time.Second), x.nothingHeld)
	cancel()
	x.polling.Wait()
	x.rules.Poison = x.load.poisoned
	r := Check(x.keeper.Close(), x.rules)
	wrong := r.Wrong()
	excuse := func(problems []string, why string) {
		if len(problems) > 0 {
			wrong = slices.DeleteFunc(wrong, func(p string) bool { return p == problems[0] })
			x.late("%s, and %s", problems[0], why)
		}
	}
	if x.stall > stalled || x.crowd > room { // leases may have ended for it
		why := fmt.Sprintf("the machine did nothing for %v, %.0f threads wanted each processor", x.stall.Round(time.Millisecond), x.crowd)
		excuse(r.twice(), why)
		excuse(r.nothing(), why)
	}
	x.wrong, x.slow = append(x.wrong, wrong...), append(x.slow, r.Slow(1)...)
	return r
}

// judge fails the test with what is wrong, and says how to see it again.
func (x *run) judge(report *Report) {
	x.Helper()
	problems := slices.Concat(x.wrong, x.slow)
	for _, p := range problems {
		x.Errorf("%s, %s: %s", x.broker.name, x.row.name, p)
	}
	if len(problems) == 0 {
		return
	}
	for _, id := range report.suspects(3) {
		x.Logf("all that the books say of %s:\n%s", id, x.keeper.Close().About(id))
	}
	x.Logf("repeat with -seed %d -run '%s'", *seed, x.Name())
	if *dump != "" {
		x.dump(x.keeper.Close())
	}
}

func (x *run) dump(books Books) {
	text, err := json.Marshal(books)
	if err == nil {
		err = os.WriteFile(filepath.Join(*dump, x.name+".json"), text, 0o600)
	}
	if err != nil {
		x.Log(err)
	}
}

// poll looks at the broker from outside, again and again, and writes down what
// it has acknowledged since the last look.
func (x *run) poll(ctx context.Context) {
	if x.broker.watch == nil {
		return
	}
	look, done := x.broker.watch(x)
	defer done()
	for ctx.Err() == nil {
		x.look(ctx, look)
		select {
		case <-ctx.Done():
		case <-time.After(x.broker.interval()):
		}
	}
}

func (x *run) look(ctx context.Context, look lookFunc) {
	promised := x.keeper.Promised()
	e := Entry{What: Position, From: x.keeper.Now()}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	seen, err := look(ctx)
	if err != nil || x.broker.idle && !x.nobody(e.From) {
		return // the broker is away, or does not show
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case seen.held != nil:
		for id := range promised {
			if !seen.held[id] && !x.settled[id] && !x.mayCome(seen, id) {
				e.IDs = append(e.IDs, id)
			}
		}
	case seen.acked != nil:
		for _, id := range seen.acked {
			if !x.settled[id] {
				e.IDs = append(e.IDs, id)
			}
		}
	default:
		e.Counted, e.Held = true, seen.count
		x.held = seen.count
	}
	for _, id := range e.IDs {
		x.settled[id] = true
	}
	if e.Counted || len(e.IDs) > 0 {
		x.keeper.Broker(e)
	}
}

// mayCome tells whether the broker, which has confirmed an event, may not show it
// yet.
func (x *run) mayCome(s seen, id string) bool {
	if s.shown == nil || s.shown[id] {
		return false
	}
	if x.hidden[id].IsZero() {
		x.hidden[id] = time.Now()
	}
	return time.Since(x.hidden[id]) < lagging
}

// stalled is how long a machine does nothing when it is said to be slow.
const stalled = 500 * time.Millisecond

// feel finds out how long this machine does nothing at a time: neither goes on
// nor writes to its disk; and how much it has to do.
func (x *run) feel(ctx context.Context) {
	f, err := os.Create(filepath.Join(x.dir, "pulse"))
	if err != nil {
		x.Error(err)
		return
	}
	defer f.Close()
	const beat = 100 * time.Millisecond
	for looks := 0.0; ctx.Err() == nil; looks++ {
		x.crowd += (machine.now() - x.crowd) / (looks + 1)
		began := time.Now()
		if _, err := f.WriteAt([]byte("."), 0); err != nil {
			x.Error(err)
		}
		if err := f.Sync(); err != nil {
			x.Error(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(beat):
		}
		x.stall = max(x.stall, time.Since(began)-beat)
	}
}

// nothingHeld tells whether the broker was seen to have acknowledged all that
// was promised. It is true where that cannot be seen.
func (x *run) nothingHeld() bool {
	promised := x.keeper.Promised()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broker.watch == nil || x.held == 0 {
		return true
	}
	for id := range promised {
		if !x.settled[id] {
			return false
		}
	}
	return true
}

func (x *run) freeze(s *process.Sidecar) { s.Signal(syscall.SIGSTOP) }
func (x *run) thaw(s *process.Sidecar)   { s.Signal(syscall.SIGCONT) }
