package ledger

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// read makes books of lines like "ok a1", one millisecond apart. An event is
// called by its key, a letter, and its number. Other bytes are written as
// "effect a1 other", another replica as "effect a1 second".
func read(t *testing.T, text string) Books {
	t.Helper()
	var b Books
	at := time.Duration(0)
	for line := range strings.SplitSeq(text, ",") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		at += time.Millisecond
		e := Entry{At: at, What: What(words[0])}
		switch e.What {
		case Fault:
			e.Limit = number(t, words[1])
			b.Faults = append(b.Faults, e)
			continue
		case Healed, Deleted, Recreated, Drained:
			b.Faults = append(b.Faults, e)
			continue
		case Position:
			e.From, e.IDs = at-time.Millisecond, words[1:]
			b.Broker = append(b.Broker, e)
			continue
		case "held":
			e.What, e.From, e.Counted, e.Held = Position, at-time.Millisecond, true, number(t, words[1])
			b.Broker = append(b.Broker, e)
			continue
		}
		e.ID, e.Key, e.Seq = words[1], words[1][:1], number(t, words[1][1:])
		switch {
		case len(words) > 2 && words[2] == "other":
			e.Sum = 1
		case len(words) > 2:
			e.Replica = words[2]
		}
		switch e.What {
		case Intent, OK, Failed, Unknown:
			b.Producer = append(b.Producer, e)
		case "sink":
			e.What = Effect
			b.Sink = append(b.Sink, e)
		default:
			e.Call = int64(e.Seq)
			b.App = append(b.App, e)
		}
	}
	return b
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// short forms of what most books have in them.
const (
	sent    = "intent a1,ok a1,intent a2,ok a2,"
	arrived = "begin a1,effect a1,reply a1,begin a2,effect a2,reply a2,"
)

// checkRow is a run as it might have been, and what is wrong with it.
type checkRow struct {
	name, books string
	rules       Rules
	want        string // the problems, "" for none
}

func deliveryRows() []checkRow {
	return []checkRow{
		{"nothing", "drained", Rules{}, "nothing was accepted or nothing delivered: the run shows nothing"},
		{"all is well", sent + arrived + "drained", Rules{Order: true, Exclusive: true}, ""},
		{"lost", sent + "effect a1,drained", Rules{}, "lost: 1: a2"},
		{"lost without an answer", "intent a1,unknown a1," + "intent a2,ok a2,effect a2,drained", Rules{}, ""},
		{"recovered", "intent a1,unknown a1,intent a2,ok a2,effect a1,effect a2,drained", Rules{Order: true}, ""},
		{"a sink has it", sent + "sink a1,sink a2,drained", Rules{}, ""},
		{"still awaited", sent + arrived, Rules{}, "events were still awaited when the run ended"},
		{"never sent", sent + arrived + "effect b1,drained", Rules{}, "phantom: 1: b1 was never sent"},
		{"other bytes", sent + "effect a1 other,effect a2,drained", Rules{}, "phantom: 1: a1 came with other bytes"},
		{"refused and delivered", "intent b1,failed b1," + sent + arrived + "effect b1,drained", Rules{}, "phantom: 1: b1 was refused and came all the same; " +
			"conservation: 2 accepted and 0 recovered, but 3 delivered, 0 dead letters, 0 lost and 0 excluded"},
		{"twice without a fault", sent + arrived + "effect a1,drained", Rules{}, "duplicates: 1, at most 0 were in flight"},
		{"twice with a fault", sent + arrived + "fault 1,effect a2,drained", Rules{}, ""},
		{"twice too often", sent + arrived + "fault 1,effect a1,effect a2,drained", Rules{}, "duplicates: 2, at most 1 were in flight"},
		{"two faults", sent + arrived + "fault 1,fault 1,effect a1,effect a2,drained", Rules{}, ""},
		{"swapped", sent + "effect a2,effect a1,drained", Rules{Order: true}, "out of order: 1: a2 came before a1"},
		{"swapped where nobody promised", sent + "effect a2,effect a1,drained", Rules{}, ""},
		{"two keys", "intent a1,ok a1,intent b1,ok b1,effect b1,effect a1,drained", Rules{Order: true}, ""},
		{"a suffix again", sent + "fault 2,effect a1,effect a2,effect a1,effect a2,drained", Rules{Order: true}, ""},
		{
			"overlap", sent + "begin a1,begin a2,effect a1,effect a2,reply a1,reply a2,drained",
			Rules{Exclusive: true},
			"overlapping calls of one key: 1: a2 began while a1 was under way",
		},
	}
}

func ackAndLetterRows() []checkRow {
	return []checkRow{
		{"early", sent + "effect a1,position a1 a2,effect a2,drained", Rules{}, "acknowledged early: 1: a2 at 6ms"},
		{"early and lost", sent + "effect a1,position a1 a2,drained", Rules{}, "lost: 1: a2; acknowledged early: 1: a2 at 6ms"},
		{"in time", sent + "effect a1,position a1,effect a2,position a2,drained", Rules{Watched: true}, ""},
		{"never acknowledged", sent + arrived + "position a1,drained", Rules{Watched: true}, "never acknowledged: 1: a2"},
		{"too few held", sent + "effect a1,held 0,effect a2,drained", Rules{}, "acknowledged early: 1: at 6ms the broker held 0 of 1"},
		{"enough held", sent + "held 2,effect a1,held 1,effect a2,held 0,drained", Rules{Watched: true}, ""},
		{"held at the end", sent + arrived + "held 1,drained", Rules{Watched: true}, "never acknowledged: 1: the broker holds 1"},
		{"held without an answer", sent + arrived + "intent b1,unknown b1,held 1,drained", Rules{Watched: true}, ""},
		{"published while it was counted", "intent a1,ok a1,effect a1,intent a2,ok a2,held 0,effect a2,drained", Rules{}, ""},
		{"poison", sent + "effect a1,letter a2,drained", Rules{Poison: map[string]bool{"a2": true}, Order: true}, ""},
		{
			"poison in between", "intent a1,ok a1,intent a2,ok a2,intent a3,ok a3,position a2,effect a1,effect a3,letter a2,drained",
			Rules{Poison: map[string]bool{"a2": true}, Order: true},
			"",
		},
		{"poison without a letter", sent + "effect a1,drained", Rules{Poison: map[string]bool{"a2": true}}, "lost: 1: a2; dead letters: 1: a2 is missing"},
		{"a letter of a healthy event", sent + "effect a1,letter a2,drained", Rules{}, "dead letters: 1: a2 is not poison"},
		{"a letter with other bytes", sent + "effect a1,letter a2 other,drained", Rules{Poison: map[string]bool{"a2": true}}, "dead letters: 1: a2 has other bytes"},
		{"a letter of nothing", sent + arrived + "letter c1,drained", Rules{}, "dead letters: 1: c1 was never sent"},
		{"deleted", "intent a1,ok a1,intent a2,deleted,ok a2,recreated,intent a3,ok a3,effect a3,drained", Rules{Order: true}, ""},
		{"deleted while it is under way", "intent a1,ok a1,intent a2,ok a2,deleted,position a1,recreated,effect a1,drained", Rules{}, ""},
		{"early before it was deleted", "intent a1,ok a1,position a1,deleted,recreated,effect a1,drained", Rules{}, "acknowledged early: 1: a1 at 3ms"},
		{"early after it was there again", "intent a1,ok a1,deleted,recreated,intent a2,ok a2,position a2,effect a2,drained", Rules{}, "acknowledged early: 1: a2 at 7ms"},
		{"lost after it was there again", "intent a1,ok a1,deleted,recreated,intent a2,ok a2,intent a3,ok a3,effect a3,drained", Rules{}, "lost: 1: a2"},
		{"slow to recover", sent + "fault 0,healed," + arrived + "intent b1,ok b1,effect b1,drained", Rules{Recovery: time.Millisecond}, "delivered again after 9ms, at most 1ms"},
		{
			"no time to recover", sent + "fault 0,healed,intent b1,ok b1,fault 0," + arrived + "effect b1,healed,intent b2,ok b2,effect b2,drained",
			Rules{Recovery: 3 * time.Millisecond},
			"",
		},
		{
			"slow after the last fault", sent + "fault 0,healed,intent b1,ok b1,fault 0,healed," + arrived + "intent b2,ok b2,effect b1,effect b2,drained",
			Rules{Recovery: 3 * time.Millisecond},
			"delivered again after 10ms, at most 3ms",
		},
		{"shared", sent + "effect a1,effect a2 second,fault 0,drained", Rules{Shared: 2}, ""},
		{"not shared before it had to", sent + "effect a1,fault 0,effect a2 second,drained", Rules{Shared: 2}, "shared by 1, want 2: map[:1]"},
		{"slow to take over", sent + "fault 0," + arrived + "drained", Rules{Takeover: 4 * time.Millisecond}, "taken over after 5ms, at most 4ms"},
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, row := range slices.Concat(deliveryRows(), ackAndLetterRows()) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(Check(read(t, row.books), row.rules).Problems(), "; ")
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckCounts(t *testing.T) {
	t.Parallel()
	r := Check(read(t, "intent a1,ok a1,intent a2,unknown a2,intent a3,ok a3,intent b1,ok b1,fault 2,effect a1,effect a2,effect a1,deleted,recreated,"+
		"letter a3,healed,intent c1,effect c1,ok c1,drained"), Rules{Poison: map[string]bool{"a3": true}})
	if problems := r.Problems(); problems != nil {
		t.Errorf("problems %q", problems)
	}
	got := fmt.Sprint(r.Accepted, r.Delivered, r.Recovered, r.Letters, r.Duplicates, r.Bound, r.Excluded, r.Recovery, r.Takeover, r.Drained)
	if want := "4 3 1 1 1 2 [b1] 2ms 1ms 4ms"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeeper(t *testing.T) {
	t.Parallel()
	k := NewKeeper()
	for _, e := range []Entry{{What: Intent, ID: "a1"}, {What: OK, ID: "a1"}, {What: Intent, ID: "a2"}, {What: OK, ID: "a2"}} {
		k.Producer(e)
	}
	k.App(Entry{What: Effect, ID: "a1"})
	if n := k.Awaited(); n != 1 {
		t.Errorf("%d awaited, want 1", n)
	}
	k.Sink(Entry{What: Letter, ID: "a2"})
	if n := k.Awaited(); n != 0 {
		t.Errorf("%d awaited, want none", n)
	}
	if promised, done := k.Counts(); promised != 2 || done != 2 || len(k.Promised()) != 2 {
		t.Errorf("%d promised, %d done", promised, done)
	}
	if !k.Since(k.Close().Producer[2].At) || k.Since(k.Now()) {
		t.Error("it does not know what came since a2")
	}
	k.Broker(Entry{What: Position, IDs: []string{"a1"}})
	k.Fault(Entry{What: Drained})
	b := k.Close()
	if len(b.Producer) != 4 || len(b.App) != 1 || len(b.Sink) != 1 || len(b.Broker) != 1 || len(b.Faults) != 1 || b.Producer[3].At <= b.Producer[0].At {
		t.Errorf("books %+v", b)
	}
}

// TestAbout: whoever reads of an event that came twice sees when, and what failed
// around it.
func TestAbout(t *testing.T) {
	t.Parallel()
	b := Books{
		Producer: []Entry{{At: time.Millisecond, What: Intent, ID: "a1"}, {At: 2 * time.Millisecond, What: Intent, ID: "b1"}},
		App:      []Entry{{At: 4 * time.Millisecond, What: Effect, ID: "a1", Call: 7, Replica: "r0"}},
		Broker:   []Entry{{At: 5 * time.Millisecond, What: Position, IDs: []string{"b1", "a1"}}},
		Faults:   []Entry{{At: 3 * time.Millisecond, What: Fault, Note: "app hangs"}},
	}
	want := "       1ms  producer intent\n       3ms  fault    fault app hangs\n       4ms  app      effect, call 7 of r0, code 0\n       5ms  broker   position"
	if got := b.About("a1"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
