package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/fake"
)

// budget is what all brokers may take together, on two processors that have more
// to do.
const budget = 12 * time.Minute

// tables are printed when all tests have ended.
var tables []*table

// ledger is the table: every fault with every broker.
func ledger(t *testing.T, brokers ...*broker) {
	t.Helper()
	tab := &table{began: time.Now()}
	tables = append(tables, tab)
	t.Run("broker", func(t *testing.T) {
		for _, b := range brokers {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				b.play(t, tab)
			})
		}
	})
	tab.took = time.Since(tab.began)
}

// play plays the rows that leave the broker alone at the same time, and then
// those that do not.
func (b *broker) play(t *testing.T, tab *table) {
	if b.open != nil {
		b.open(t)
	}
	var alone, beside []row
	for _, r := range rows() {
		switch why := b.lacks(&r); {
		case why != "":
			tab.add(b, &r, "", why)
		case r.server:
			alone = append(alone, r)
		default:
			beside = append(beside, r)
		}
	}
	t.Run("row", func(t *testing.T) {
		chains := len(beside)
		if b.most > 0 {
			chains = min(chains, b.most)
		}
		for i := range chains {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for n := i; n < len(beside); n += chains {
					t.Run(beside[n].name, func(t *testing.T) { b.row(t, tab, &beside[n]) })
				}
			})
		}
	})
	for _, r := range alone {
		t.Run("row/"+r.name, func(t *testing.T) { b.row(t, tab, &r) })
	}
}

func (b *broker) row(t *testing.T, tab *table, r *row) {
	began := time.Now()
	tab.add(b, r, "did not end: see the errors above | | | | | | | | |", "")
	x, report := b.once(t, r, false)
	again := ""
	for n := 0; n < 2 && x.excused(); n++ {
		again = ", again"
		t.Logf("played again, and alone, for the machine was slow: %s", strings.Join(x.slow, "; "))
		x, report = b.once(t, r, true)
	}
	if x.excused() && x.crowd >= 2*calm {
		times := int(x.crowd / calm)
		again = fmt.Sprintf(", with %d times as long as on a machine of its own", times)
		x.allow(report, times)
	}
	x.judge(report)
	tab.add(b, r, report.line(x)+fmt.Sprintf(" | %.0f s%s", time.Since(began).Seconds(), again), "")
}

// excused tells whether a row has no problem but those that a busy machine makes.
func (x *run) excused() bool { return len(x.wrong) == 0 && len(x.slow) > 0 }

// allow takes back the limits of time that were passed, but for what took longer
// than so many times.
func (x *run) allow(r *Report, times int) {
	strict := r.Slow(1)
	x.slow = slices.DeleteFunc(x.slow, func(p string) bool { return slices.Contains(strict, p) })
	x.slow = append(x.slow, r.Slow(times)...)
}

// once plays a row, when the machine has room for it or has it alone.
func (b *broker) once(t *testing.T, r *row, alone bool) (*run, *Report) {
	t.Helper()
	defer machine.enter(alone)()
	x := newRun(t, b, r)
	if r.proxied {
		x.proxy, x.addr = b.behind(t, r)
	}
	return x, x.play()
}

// network is what a row does to the connections of a sidecar with its broker.
type network interface {
	Set(fake.Network)
	HalfOpen()
}

// behind puts a proxy in front of the broker.
func (b *broker) behind(t *testing.T, r *row) (network, string) {
	t.Helper()
	if b.proxy != nil {
		return b.proxy(t, r)
	}
	p, err := fake.NewProxy(b.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, p.Addr()
}

// lacks is why a row does not apply.
func (b *broker) lacks(r *row) string {
	switch {
	case b.not[r.name] != "":
		return b.not[r.name]
	case r.server && !b.hasServer, r.proxied && !b.hasServer:
		return "has no server"
	case r.removes && b.remove == nil:
		return "nobody else can delete it"
	}
	return ""
}

// line is the row of the table.
func (r *Report) line(x *run) string {
	early, order := fmt.Sprint(len(r.Early)), "not promised"
	if x.broker.watch == nil {
		early = "not shown"
	}
	if r.rules.Order {
		order = fmt.Sprint(len(r.Disorder))
	}
	lost := fmt.Sprint(len(r.Lost))
	if len(r.Excluded) > 0 {
		lost += fmt.Sprintf(" (%d were deleted)", len(r.Excluded))
	}
	return strings.Join([]string{
		fmt.Sprint(r.Accepted), fmt.Sprint(r.Delivered), lost, fmt.Sprint(len(r.Phantom)), early, fmt.Sprintf("%d (%d)", r.Duplicates, r.Bound), order,
		fmt.Sprintf("%d (%d)", r.Letters, len(r.rules.Poison)), r.recovery(),
	}, " | ")
}

// recovery tells how long it took to go on.
func (r *Report) recovery() string {
	var all []string
	if r.rules.Shared > 0 {
		shares := slices.Sorted(maps.Values(r.Shares))
		all = append(all, "shared "+strings.Trim(strings.ReplaceAll(fmt.Sprint(shares), " ", " + "), "[]"))
	}
	if r.Recovery > 0 {
		all = append(all, fmt.Sprintf("%.2f s", r.Recovery.Seconds()))
	}
	if r.rules.Takeover > 0 {
		all = append(all, fmt.Sprintf("taken over in %.2f s", r.Takeover.Seconds()))
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

// table collects the lines of all rows, in whatever order they end.
type table struct {
	began time.Time
	took  time.Duration

	mu      sync.Mutex
	lines   map[string]map[string]string // by broker and row
	brokers []*broker
}

func (tab *table) add(b *broker, r *row, line, why string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if tab.lines == nil {
		tab.lines = map[string]map[string]string{}
	}
	if tab.lines[b.name] == nil {
		tab.lines[b.name] = map[string]string{}
		tab.brokers = append(tab.brokers, b)
	}
	if why != "" {
		line = "does not apply: " + why + " | | | | | | | | |"
	}
	tab.lines[b.name][r.name] = line
}

func (tab *table) print() {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	fmt.Printf("\nThe ledger, seed %d. Duplicates and dead letters: how many there were, and in brackets how many there may or must be.\n\n", *seed)
	fmt.Println("| broker | row | produced | delivered | lost | phantom | early acks | duplicates | out of order | dead letters | recovery | took |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	n := 0
	for _, b := range tab.brokers {
		for _, r := range rows() {
			if line, ok := tab.lines[b.name][r.name]; ok {
				fmt.Printf("| %s | %s | %s |\n", strings.TrimSpace(b.name+" "+b.version), r.name, line)
				n++
			}
		}
	}
	fmt.Printf("\n%d rows in %v", n, tab.took.Round(time.Second))
	if !*full {
		fmt.Printf(" of the %v that they may take", budget)
	}
	fmt.Println()
}
