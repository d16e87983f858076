package ledger

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
	"github.com/penstock-io/penstock/test/process"
)

var (
	full  = flag.Bool("full", false, "full length: 20 kills, 60 s without a broker")
	seed  = flag.Uint64("seed", 0, "repeat the run of this seed; 0 takes a new one")
	dump  = flag.String("dump", "", "folder for the books, as JSON, of each run that fails")
	atOne = flag.Int("rows", 8, "rows that run at the same time")
)

var binary string

func TestMain(m *testing.M) {
	if mutant() {
		return
	}
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000)
	}
	// Rows mostly wait, so that more of them than there are processors may run.
	if err := flag.Set("test.parallel", fmt.Sprint(*atOne)); err != nil {
		panic(err)
	}
	os.Exit(process.Main(func() int {
		code := m.Run()
		for _, tab := range tables {
			tab.print() // here, where it stands behind all that the tests print
		}
		return code
	}, &binary))
}

// length is how long something takes, or how often it happens, in the short form
// and in the full one.
func length[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}

// ports are those that were handed out: some are not listened on yet.
var ports sync.Map

func freePort(t *testing.T) int {
	t.Helper()
	for {
		p, err := port.Free()
		if err != nil {
			t.Fatal(err)
		}
		if _, taken := ports.LoadOrStore(p, true); !taken {
			return p
		}
	}
}

// wait lets things go on for a while; the while is what is tested.
func wait(d time.Duration) { <-time.After(d) }

// eventually polls for a condition and tells whether it came true.
func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			return false
		}
		<-time.After(10 * time.Millisecond)
	}
	return true
}
