package ledger

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// How many threads may want each processor: calm, while limits of time mean what
// they say, and room, while another row may begin.
const (
	calm = 8
	room = 2 * calm
)

// machine is what all rows are played on.
var machine = &place{load: "/proc/loadavg"}

// place lets in as many rows as a machine has room for.
type place struct {
	load string // the file that tells how many threads run or want to

	door    sync.Mutex   // held by the row that is about to enter
	playing sync.RWMutex // held by every row, and for itself by one that is alone

	mu sync.Mutex
	n  int // rows that are played
}

// enter waits until the machine has room or plays no other row; alone waits for
// the latter. leave must be called.
func (p *place) enter(alone bool) (leave func()) {
	if alone {
		p.playing.Lock()
		return p.playing.Unlock
	}
	p.door.Lock()
	defer p.door.Unlock()
	for p.others() && p.crowd(500*time.Millisecond) > room {
		continue
	}
	p.playing.RLock()
	p.count(1)
	return func() {
		p.count(-1)
		p.playing.RUnlock()
	}
}

func (p *place) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += n
}

func (p *place) others() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n > 0
}

// crowd looks for a while and returns how many threads want each processor, on
// average.
func (p *place) crowd(during time.Duration) float64 {
	const looks = 10
	sum := 0.0
	for range looks {
		wait(during / looks)
		sum += p.now()
	}
	return sum / looks
}

// now is how many threads want each processor at this moment, beside the one that
// asks; 0 where no file tells.
func (p *place) now() float64 {
	text, err := os.ReadFile(p.load)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text)) // averages, then running/all
	if len(fields) < 4 {
		return 0
	}
	running, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(running)
	if err != nil {
		return 0
	}
	return float64(max(n-1, 0)) / float64(runtime.NumCPU())
}

func TestRowsWaitForRoom(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "loadavg")
	say := func(running int) {
		text := "1.00 1.00 1.00 " + strconv.Itoa(running) + "/500 1234\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entered := func(p *place) chan func() {
		in := make(chan func(), 1)
		go func() { in <- p.enter(false) }()
		return in
	}
	p := &place{load: file}
	say(100 * room * runtime.NumCPU())
	first := <-entered(p) // nobody else is there
	second := entered(p)
	select {
	case <-second:
		t.Fatal("a second row begins on a machine that has too much to do")
	case <-time.After(1500 * time.Millisecond):
	}
	say(1)
	leave := <-second
	say(100 * room * runtime.NumCPU())
	third := entered(p)
	first()
	leave()
	(<-third)()
	if got := (&place{load: filepath.Join(t.TempDir(), "none")}).now(); got != 0 {
		t.Errorf("%v where no file tells, want 0", got)
	}
	p.enter(true)()
}
