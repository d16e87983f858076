package ledger

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/fake"
)

// TestLedger is the table: every fault with every broker.
func TestLedger(t *testing.T) {
	t.Parallel()
	began := time.Now()
	tab := &table{}
	t.Run("broker", func(t *testing.T) {
		for _, b := range append([]*broker{sqliteBroker()}, serverBrokers()...) {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				b.play(t, tab)
			})
		}
	})
	tab.print(time.Since(began))
}

// play plays the rows that leave the broker alone at the same time, and then
// those that do not.
func (b *broker) play(t *testing.T, tab *table) {
	if b.open != nil {
		b.open(t)
	}
	var alone []row
	t.Run("row", func(t *testing.T) {
		for _, r := range rows() {
			if why := b.lacks(&r); why != "" {
				tab.add(b, &r, "", why)
				continue
			}
			if r.server {
				alone = append(alone, r)
				continue
			}
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				b.row(t, tab, &r)
			})
		}
	})
	for _, r := range alone {
		t.Run("row/"+r.name, func(t *testing.T) { b.row(t, tab, &r) })
	}
}

func (b *broker) row(t *testing.T, tab *table, r *row) {
	x := newRun(t, b, r)
	if r.proxied {
		p, err := fake.NewProxy(x.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		x.proxy, x.addr = p, p.Addr()
	}
	began := time.Now()
	report, problems := x.play()
	x.judge(problems)
	tab.add(b, r, report.line(x)+fmt.Sprintf(" | %.0f s", time.Since(began).Seconds()), "")
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
	recovery := "-"
	if r.Recovery > 0 {
		recovery = fmt.Sprintf("%.2f s", r.Recovery.Seconds())
	}
	if r.rules.Takeover > 0 {
		recovery = fmt.Sprintf("%.2f s, all in %.2f s", r.Recovery.Seconds(), r.Takeover.Seconds())
	}
	return strings.Join([]string{
		fmt.Sprint(r.Accepted), fmt.Sprint(r.Delivered), lost, fmt.Sprintf("%d (%d)", r.Duplicates, r.Bound), early, order,
		fmt.Sprintf("%d (%d)", r.Letters, len(r.rules.Poison)), recovery,
	}, " | ")
}

// table collects the lines of all rows, in whatever order they end.
type table struct {
	mu    sync.Mutex
	lines map[string]map[string]string // by broker and row
	names []string
}

func (tab *table) add(b *broker, r *row, line, why string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if tab.lines == nil {
		tab.lines = map[string]map[string]string{}
	}
	if tab.lines[b.name] == nil {
		tab.lines[b.name] = map[string]string{}
		tab.names = append(tab.names, b.name)
	}
	if why != "" {
		line = "does not apply: " + why + " | | | | | | | |"
	}
	tab.lines[b.name][r.name] = line
}

func (tab *table) print(took time.Duration) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	fmt.Printf("\nThe ledger, seed %d, %v. Duplicates and dead letters: how many there were, and in brackets how many there may or must be.\n\n", *seed, took.Round(time.Second))
	fmt.Println("| broker | row | accepted | delivered | lost | duplicates | early acks | out of order | dead letters | recovery | took |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	n := 0
	for _, name := range tab.names {
		for _, r := range rows() {
			if line, ok := tab.lines[name][r.name]; ok {
				fmt.Printf("| %s | %s | %s |\n", name, r.name, line)
				n++
			}
		}
	}
	fmt.Printf("\n%d rows\n", n)
}
