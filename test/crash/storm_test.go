package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	stormTopics = 8
	// stormRate is how many events are published in a second: half of them to a
	// route that nothing changes, the rest to those that come and go.
	stormRate = 500
	// stormPause is the mean time between two changes.
	stormPause = 60 * time.Millisecond
)

// file is one of the files that the storm changes. Each form of it is a version
// of a whole file.
type file struct {
	name  string
	forms []string
	// kept is never deleted: what it declares holds events in memory.
	kept bool
}

// stormFiles are everything that may change while events flow.
func stormFiles(data string) []file {
	files := []file{{name: "mem.yaml", kept: true, forms: each(func(i int) string {
		return component("mem", "pubsub.in-memory", fmt.Sprintf("{name: maxMessages, value: %d}", 100_000+i))
	})}}
	for n := range stormTopics {
		bus := []string{"mem", "bus"}[n%2]
		files = append(files, file{name: fmt.Sprintf("sub-%d.yaml", n), forms: each(func(i int) string {
			return fmt.Sprintf("apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: storm-%[2]d}\nspec:\n"+
				"  pubsubname: %[1]s\n  topic: storm-%[2]d\n  routes: {default: /storm/%[3]d}\n  concurrency: %[4]d\n", bus, n, i, 1+i)
		})})
	}
	return append(files,
		file{name: "cron.yaml", forms: each(func(i int) string {
			return component("tick", "bindings.cron", fmt.Sprintf(`{name: schedule, value: "@every %dm"}`, 10+i))
		})},
		file{name: "store.yaml", forms: each(func(i int) string {
			return component("store", "bindings.localstorage", fmt.Sprintf("{name: rootPath, value: %s}", filepath.Join(data, fmt.Sprint("store-", i))))
		})},
		file{name: "pipe.yaml", forms: each(func(i int) string {
			return fmt.Sprintf("apiVersion: penstock.dev/v1\nkind: Pipeline\nmetadata: {name: pipe}\nspec:\n  from: {pubsub: mem, topic: nobody}\n"+
				"  concurrency: %d\n  to:\n    - app: {route: /pipe}\n", 1+i)
		})},
		file{name: "policy.yaml", forms: each(func(i int) string {
			return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: policy}\nspec:\n  policies:\n    retries:\n"+
				"      few: {policy: constant, duration: %dms, maxRetries: 3}\n  targets:\n    components:\n      mem: {inbound: {retry: few}}\n", 100+i)
		})},
	)
}

// each makes four forms of a file.
func each(form func(i int) string) (forms []string) {
	for i := range 4 {
		forms = append(forms, form(i))
	}
	return forms
}

func component(name, typ, item string) string {
	return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec:\n  type: %s\n  version: v1\n  metadata: [%s]\n", name, typ, item)
}

// broken are what a file may turn into by mistake.
func broken() []string {
	return []string{"{", "kind: Component\n\tbad: tab", component("x", "pubsub.sqlitte", ""), component("", "bindings.cron", ""), "a: &a [*a, *a]"}
}

// storm changes the files at random and counts what it did.
type storm struct {
	s     *sidecar
	files []file
	there map[string]bool
	count map[string]int
}

// change makes one change. A broken file is mended by the next change, or it
// would keep every other from being taken over.
func (st *storm) change(mend *file) (broke *file) {
	if mend != nil {
		st.write(mend, "mended")
		return nil
	}
	f := &st.files[rand.N(len(st.files))]
	switch dice := rand.N(10); {
	case dice == 0:
		st.s.write(f.name, broken()[rand.N(len(broken()))])
		st.there[f.name] = true
		st.count["broken"]++
		return f
	case dice < 4 && st.there[f.name] && !f.kept:
		if err := os.Remove(filepath.Join(st.s.dir, f.name)); err != nil {
			st.s.t.Fatal(err)
		}
		st.there[f.name] = false
		st.count["deleted"]++
	case st.there[f.name]:
		st.write(f, "updated")
	default:
		st.write(f, "created")
	}
	return nil
}

func (st *storm) write(f *file, what string) {
	st.s.write(f.name, f.forms[rand.N(len(f.forms))])
	st.there[f.name] = true
	st.count[what]++
}

// calm puts every file back, so that whatever was published has a route.
func (st *storm) calm() {
	for i := range st.files {
		st.s.write(st.files[i].name, st.files[i].forms[0])
	}
}

// refuse breaks a file and leaves it so until penstock has said so: in the storm
// a file may be mended before a slow machine has looked at it.
func (st *storm) refuse() {
	const said = "Configuration has errors"
	before := strings.Count(st.s.Log(), said)
	st.s.write(st.files[0].name, broken()[0])
	eventually(st.s.t, time.Minute, said, func() bool { return strings.Count(st.s.Log(), said) > before })
}

// TestStorm changes the configuration about seventeen times a second under load:
// files are created, updated, deleted and broken at random. Nothing is lost,
// nothing dead-lettered, a route that nothing changes never pauses, and memory
// stays flat.
func TestStorm(t *testing.T) {
	a := newApp(t)
	s := newSidecar(t, a.port)
	st := &storm{s: s, files: stormFiles(s.data), there: map[string]bool{}, count: map[string]int{}}
	st.calm()
	for _, f := range st.files {
		st.there[f.name] = true
	}
	s.write("steady.yaml", component("steady", "pubsub.in-memory", "")+"---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: steady}\n"+
		"spec: {pubsubname: steady, topic: steady, routes: {default: /steady}}\n")
	s.start()
	p := newPulse(s, a)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.run(ctx) })
	n := rounds(150, 1000)
	var mend *file
	var memory []float64
	for i := range n {
		wait(time.Duration(rand.ExpFloat64() * float64(stormPause))) // now bursts, now a break
		mend = st.change(mend)
		if i%(n/10) == n/10-1 {
			memory = append(memory, s.memory())
		}
	}
	st.refuse()
	st.calm()
	cancel()
	wg.Wait()
	report(t, st, p, memory)
	s.stop()
}

func report(t *testing.T, st *storm, p *pulse, memory []float64) {
	t.Helper()
	missing, duplicates := p.settle(t)
	log := st.s.Log()
	steady, other := p.pauses()
	fmt.Printf("%s: %v; taken over %d times, refused %d times\n", t.Name(), st.count,
		strings.Count(log, "Configuration reloaded"), strings.Count(log, "Configuration has errors"))
	fmt.Printf("%s: accepted %d, lost %d, duplicates %d, dead letters %d, refused %d\n", t.Name(), p.accepted(), len(missing), duplicates, p.app.dead.Load(), p.refused)
	fmt.Printf("%s: longest time from publish to delivery on the route that nothing changed %v (99.9 %% within %v); on the others %v\n",
		t.Name(), steady[len(steady)-1], steady[len(steady)*999/1000], other[len(other)-1])
	fmt.Printf("%s: memory in MB, each tenth of the time: %.0f\n", t.Name(), memory)
	if len(missing) > 0 || p.app.dead.Load() > 0 {
		t.Errorf("%d events are lost, the first is %s; %d dead letters", len(missing), append(missing, "")[0], p.app.dead.Load())
	}
	if p.refused > 0 {
		t.Errorf("%d publishes were refused", p.refused)
	}
	if longest := steady[len(steady)-1]; longest > pauseLimit() {
		t.Errorf("an event of the route that nothing changed took %v", longest)
	}
	if half := slices.Max(memory[:len(memory)/2]); *full && memory[len(memory)-1] > 1.25*half+5 {
		t.Errorf("memory grew from at most %.0f MB in the first half to %.0f MB", half, memory[len(memory)-1])
	}
	if strings.Count(log, "Configuration reloaded") < 10 || strings.Count(log, "Configuration has errors") == 0 {
		t.Error("hardly anything was taken over or refused: the test shows nothing")
	}
}

// pauseLimit is 100 ms; the short form, which runs beside other tests, bears
// more.
func pauseLimit() time.Duration {
	if *full {
		return 100 * time.Millisecond
	}
	return time.Second
}

// pulse publishes at a steady rate, one topic in turn, and knows how long each
// event took.
type pulse struct {
	s   *sidecar
	app *app

	mu      sync.Mutex
	sent    map[string]time.Time // by id
	ids     []string
	refused int
}

func newPulse(s *sidecar, a *app) *pulse {
	p := &pulse{s: s, app: a, sent: map[string]time.Time{}}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = map[string]time.Time{}
	return p
}

// run publishes until ctx ends and then waits for the answers.
func (p *pulse) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / stormRate)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id, to := fmt.Sprintf("steady-%d", i), "steady/steady"
		if i%2 == 1 {
			n := i / 2 % stormTopics
			id, to = fmt.Sprintf("storm-%d", i), fmt.Sprintf("%s/storm-%d", []string{"mem", "bus"}[n%2], n)
		}
		wg.Go(func() { p.publish(id, to) })
	}
}

func (p *pulse) publish(id, to string) {
	began := time.Now()
	resp, err := http.Post(p.s.API("/publish/"+to), "application/json", strings.NewReader(fmt.Sprintf(`{"note":"[id-%s]"}`, id)))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.refused++
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		p.refused++
		return
	}
	p.sent[id] = began
	p.ids = append(p.ids, id)
}

func (p *pulse) accepted() int { return len(p.ids) }

// settle waits until everything has arrived.
func (p *pulse) settle(t *testing.T) (missing []string, duplicates int) {
	t.Helper()
	if len(p.ids) == 0 {
		t.Fatal("nothing was accepted: the test shows nothing")
	}
	for end := time.Now().Add(60 * time.Second); ; {
		if missing, duplicates = p.app.tally(p.ids); len(missing) == 0 || time.Now().After(end) {
			return missing, duplicates
		}
		tick := time.NewTimer(50 * time.Millisecond)
		<-tick.C
	}
}

// pauses returns how long events took, shortest first, by the route they took.
func (p *pulse) pauses() (steady, other []time.Duration) {
	p.app.mu.Lock()
	defer p.app.mu.Unlock()
	for id, at := range p.app.at {
		took := at.Sub(p.sent[id])
		if strings.HasPrefix(id, "steady") {
			steady = append(steady, took)
		} else {
			other = append(other, took)
		}
	}
	slices.Sort(steady)
	slices.Sort(other)
	return steady, other
}
