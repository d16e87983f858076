package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// locksInSQLite is a lock store that all replicas reach.
func locksInSQLite(t *testing.T) string {
	return lockStore("lock.sqlite", "connectionString", filepath.Join(t.TempDir(), "locks.db"))
}

func lockStore(kind string, options ...string) string {
	return resource("locks", kind, "v1", options...) + "---\n"
}

// cronResources is a schedule of every second that one replica fires.
func cronResources(locks, catchUp string) string {
	return locks + resource("tick", "bindings.cron", "v1", "schedule", "* * * * * *", "exclusive", "locks", "catchUp", catchUp)
}

// clockwork is what the apps of all replicas have got.
type clockwork struct {
	mu     sync.Mutex
	slots  map[time.Time]int // how often each came
	last   [3]time.Time      // of the app of each replica
	leader int               // whose app got the last one
	ticks  int
}

// serve is the app of one replica. It takes its time, so that ticks are under
// way when their replica is killed.
func (c *clockwork) serve(t *testing.T, replica int) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("OPTIONS /tick", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /tick", func(w http.ResponseWriter, r *http.Request) {
		slot, err := time.Parse(time.RFC3339Nano, r.Header.Get("scheduledTime"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		c.slots[slot.UTC()]++
		c.last[replica], c.leader = slot.UTC(), replica
		c.ticks++
		c.mu.Unlock()
		wait(rand.N(50 * time.Millisecond))
	})
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

func (c *clockwork) now() (leader, ticks int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader, c.ticks
}

// more waits for n more ticks.
func (c *clockwork) more(t *testing.T, n int) {
	t.Helper()
	_, before := c.now()
	eventually(t, time.Minute, fmt.Sprintf("%d more ticks", n), func() bool {
		_, ticks := c.now()
		return ticks >= before+n
	})
}

// TestCronKill has three replicas fire one schedule, and kills again and again
// the one that does. No slot is missed, and none comes twice but the one that a
// killed replica had under way.
func TestCronKill(t *testing.T) { cronKill(t, locksInSQLite(t)) }

func cronKill(t *testing.T, locks string) {
	t.Helper()
	c, replicas := clockworks(t, cronResources(locks, "all"))
	c.more(t, 2)
	n, underWay := rounds(4, 25), map[time.Time]int{}
	for i := range n {
		if i%2 == 0 {
			wait(rand.N(time.Second))
		} else {
			c.more(t, 1) // the kill hits a tick under way
		}
		leader := c.kill(replicas)
		c.more(t, 1+rand.N(5)) // some kills hit a replica that is catching up
		underWay[c.lastOf(leader)]++
		replicas[leader].start()
	}
	c.more(t, 2)
	for range 3 { // clean ends hand over without doubles
		leader, _ := c.now()
		replicas[leader].stop()
		replicas[leader].start()
		c.more(t, 2)
	}
	c.finish(t, replicas)
	slots := slices.SortedFunc(maps.Keys(c.slots), time.Time.Compare)
	doubles := 0
	for slot, times := range c.slots {
		doubles += times - 1
		if most := 1 + underWay[slot]; times > most {
			t.Errorf("slot %s came %d times; replicas were killed with it under way %d times", slot.Format(time.TimeOnly), times, most-1)
		}
	}
	missing := int(slots[len(slots)-1].Sub(slots[0])/time.Second) + 1 - len(slots)
	fmt.Printf("%s: leader killed %d times, %d slots, %d missing, %d came twice under way\n", t.Name(), n, len(c.slots), missing, doubles)
	if missing != 0 {
		t.Error("slots are missing")
	}
}

// TestCronKillWithoutCatchUp: by default what nobody fired in time is left out,
// but for the newest, and still nothing comes twice.
func TestCronKillWithoutCatchUp(t *testing.T) {
	c, replicas := clockworks(t, cronResources(locksInSQLite(t), "none"))
	c.more(t, 2)
	leader := c.kill(replicas)
	c.more(t, 3)
	c.finish(t, replicas)
	for s, times := range c.slots {
		if times > 1 && !s.Equal(c.lastOf(leader)) {
			t.Errorf("slot %s came %d times", s.Format(time.TimeOnly), times)
		}
	}
	if len(c.slots) < 5 {
		t.Errorf("%d slots came", len(c.slots))
	}
}

// clockworks starts three replicas and their apps.
func clockworks(t *testing.T, resources string) (*clockwork, []*sidecar) {
	t.Helper()
	c := &clockwork{slots: map[time.Time]int{}}
	var replicas []*sidecar
	for i := range 3 {
		s := newSidecar(t, c.serve(t, i))
		s.write("resources.yaml", resources)
		s.start()
		replicas = append(replicas, s)
	}
	return c, replicas
}

// lastOf is the slot that the app of a replica got last.
func (c *clockwork) lastOf(replica int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[replica]
}

// kill kills the replica that fires.
func (c *clockwork) kill(replicas []*sidecar) (leader int) {
	leader, _ = c.now()
	replicas[leader].Kill()
	return leader
}

// finish stops all replicas, so that no tick is under way any more.
func (c *clockwork) finish(t *testing.T, replicas []*sidecar) {
	t.Helper()
	for _, s := range replicas {
		if s.Running() {
			s.stop()
		}
	}
}
