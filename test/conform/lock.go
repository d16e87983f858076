package conform

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/lock"
)

// LockSetup says how to get at a lock store.
type LockSetup struct {
	// Options makes working options. Those of one call lead to the same locks as
	// long as the test runs.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
}

// lockTest is one case: two drivers of the same locks, as of two processes, and
// what makes its keys its own.
type lockTest struct {
	d, other lock.Driver
	prefix   string
	open     func(t *testing.T) lock.Driver
}

const (
	// lockLong outlasts every case.
	lockLong = 5 * time.Minute
	// lockBrief is the shortest time that the API can ask for.
	lockBrief = time.Second
	// lockSlack is what clocks and rounding may take off it.
	lockSlack = 20 * time.Millisecond
	// lockPatience is how long a case waits for the end of a lock.
	lockPatience = 30 * time.Second
)

// Lock runs the suite of lock stores.
func Lock(t *testing.T, def component.Definition, setup LockSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, *lockTest){
		"hold and let go": lockBasics, "names": lockNames, "exclusion": lockExclusion, "expiry": lockExpiry,
		"renewal": lockRenewal, "tokens": lockTokens, "crash of the holder": lockCrash, "cancelled": lockCancelled, "notes": lockNotes,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			options := setup.Options(t)
			lt := &lockTest{prefix: "lock||" + Unique(t) + "||"}
			lt.open = func(t *testing.T) lock.Driver {
				d, ok := opened(t, def, environment(t), options).(lock.Driver)
				if !ok {
					t.Fatal("it does not implement lock.Driver")
				}
				return d
			}
			lt.d, lt.other = lt.open(t), lt.open(t)
			run(t, lt)
			for _, d := range []lock.Driver{lt.d, lt.other} {
				shut(t, d)
				shut(t, d)
			}
		})
	}
}

// try tries once, which must not fail.
func (lt *lockTest) try(t *testing.T, d lock.Driver, name, owner string, expiry time.Duration) lock.Grant {
	t.Helper()
	g, err := d.TryLock(t.Context(), lt.prefix+name, owner, expiry)
	if err != nil {
		t.Fatalf("try lock %q for %q: %v", name, owner, err)
	}
	if g.Held != (g.Token > 0) || g.Token >= 1<<53 {
		t.Fatalf("try lock %q for %q: %+v; want a token of 1 to 2^53-1 when it is held, else none", name, owner, g)
	}
	return g
}

// held wants a try to have an outcome, and returns the token.
func (lt *lockTest) held(t *testing.T, d lock.Driver, name, owner string, want bool) int64 {
	t.Helper()
	g := lt.try(t, d, name, owner, lockLong)
	if g.Held != want {
		t.Fatalf("lock %q for %q: held %v, want %v", name, owner, g.Held, want)
	}
	return g.Token
}

func (lt *lockTest) unlock(t *testing.T, d lock.Driver, name, owner string, want lock.Status) {
	t.Helper()
	if got, err := d.Unlock(t.Context(), lt.prefix+name, owner); err != nil || got != want {
		t.Fatalf("unlock %q for %q: status %d, %v; want %d", name, owner, got, err, want)
	}
}

func (lt *lockTest) renew(t *testing.T, name, owner string, expiry time.Duration, want lock.Status) {
	t.Helper()
	if got, err := lt.d.Renew(t.Context(), lt.prefix+name, owner, expiry); err != nil || got != want {
		t.Fatalf("renew %q for %q: status %d, %v; want %d", name, owner, got, err, want)
	}
}

// free waits until owner gets the lock, and returns when that was.
func (lt *lockTest) free(t *testing.T, d lock.Driver, name, owner string) time.Time {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(lockPatience); time.Now().Before(end); <-tick.C {
		if lt.try(t, d, name, owner, lockLong).Held {
			return time.Now()
		}
	}
	t.Fatalf("lock %q did not get free within %s", name, lockPatience)
	return time.Time{}
}

func lockBasics(t *testing.T, lt *lockTest) {
	lt.unlock(t, lt.d, "a", "ann", lock.Missing)
	lt.renew(t, "a", "ann", lockLong, lock.Missing)
	lt.held(t, lt.d, "a", "ann", true)
	lt.held(t, lt.d, "a", "bob", false)
	lt.held(t, lt.other, "a", "bob", false)
	lt.held(t, lt.d, "a", "ann", false) // not by the same owner either
	lt.unlock(t, lt.d, "a", "bob", lock.Foreign)
	lt.renew(t, "a", "bob", lockLong, lock.Foreign)
	lt.held(t, lt.d, "b", "bob", true) // another lock is another matter
	lt.unlock(t, lt.other, "a", "ann", lock.Done)
	lt.unlock(t, lt.d, "a", "ann", lock.Missing)
	lt.held(t, lt.other, "a", "bob", true)
	lt.unlock(t, lt.d, "a", "ann", lock.Foreign)
	lt.unlock(t, lt.d, "a", "bob", lock.Done)
	lt.unlock(t, lt.d, "b", "bob", lock.Done)
}

func lockNames(t *testing.T, lt *lockTest) {
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	names := []string{
		"a", "A", "a ", " a", "with space", "a/b", "a'b", `a"b`, "'; DROP TABLE locks; --", "100%", "*", "{y}", `back\slash`,
		"é✓", "e\u0301✓", "tab\tkey", "line\nbreak", string(long), "-1", "0",
	}
	for i, name := range names {
		lt.held(t, lt.d, name, names[len(names)-1-i], true)
	}
	for i, name := range names {
		owner := names[len(names)-1-i]
		lt.unlock(t, lt.d, name, owner+"x", lock.Foreign)
		lt.unlock(t, lt.d, name, owner, lock.Done)
	}
}

// lockExclusion has 16 owners in two processes, each of which wants the lock a
// few times. What the lock guards is not atomic by itself.
func lockExclusion(t *testing.T, lt *lockTest) {
	const owners, turns = 16, 5
	var inside, total atomic.Int64
	var last int64 // guarded by the lock alone
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := range owners {
		wg.Go(func() {
			d, owner := lt.d, "owner "+strconv.Itoa(i)
			if i%2 == 1 {
				d = lt.other
			}
			for taken := 0; taken < turns; {
				g, err := d.TryLock(ctx, lt.prefix+"x", owner, lockLong)
				if err != nil {
					t.Errorf("%s: %v", owner, err)
					return
				}
				if !g.Held {
					continue
				}
				taken++
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d owners hold the lock", n)
				}
				if before := atomic.SwapInt64(&last, g.Token); before >= g.Token {
					t.Errorf("token %d came after %d", g.Token, before)
				}
				total.Add(1)
				inside.Add(-1)
				if st, err := d.Unlock(ctx, lt.prefix+"x", owner); err != nil || st != lock.Done {
					t.Errorf("%s: unlock: status %d, %v", owner, st, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := total.Load(); n != owners*turns {
		t.Errorf("%d grants, want %d", n, owners*turns)
	}
}

func lockExpiry(t *testing.T, lt *lockTest) {
	gone := lt.try(t, lt.d, "gone", "ann", lockBrief) // first: it must have run out when the other has
	begun := time.Now()
	if !lt.try(t, lt.d, "a", "ann", lockBrief).Held || !gone.Held {
		t.Fatal("a free lock was not granted")
	}
	if lasted := lt.free(t, lt.other, "a", "bob").Sub(begun); lasted < lockBrief-lockSlack {
		t.Errorf("the lock lasted %s, want %s", lasted, lockBrief)
	}
	lt.unlock(t, lt.d, "a", "ann", lock.Foreign) // it does not let go of bob's
	lt.renew(t, "a", "ann", lockLong, lock.Foreign)
	lt.renew(t, "gone", "ann", lockLong, lock.Missing)
	lt.unlock(t, lt.d, "gone", "ann", lock.Missing)
	lt.held(t, lt.d, "a", "cat", false)
	lt.unlock(t, lt.other, "a", "bob", lock.Done)
}

func lockRenewal(t *testing.T, lt *lockTest) {
	begun := time.Now() // three seconds are enough on a machine that writes much
	if !lt.try(t, lt.d, "a", "ann", 3*lockBrief).Held {
		t.Fatal("a free lock was not granted")
	}
	lt.renew(t, "a", "ann", 4*lockBrief, lock.Done)
	if lasted := lt.free(t, lt.other, "a", "bob").Sub(begun); lasted < 4*lockBrief-lockSlack {
		t.Errorf("the lock lasted %s after it was renewed to %s", lasted, 4*lockBrief)
	}
	lt.unlock(t, lt.other, "a", "bob", lock.Done)
	lt.held(t, lt.d, "b", "ann", true)
	lt.renew(t, "b", "ann", lockBrief, lock.Done) // also to less
	lt.free(t, lt.other, "b", "bob")
}

func lockTokens(t *testing.T, lt *lockTest) {
	last := int64(0)
	grows := func(token int64) {
		t.Helper()
		if token <= last {
			t.Fatalf("token %d came after %d", token, last)
		}
		last = token
	}
	for i := range 20 {
		d := []lock.Driver{lt.d, lt.other}[i%2]
		grows(lt.held(t, d, "a", "ann", true))
		grows(lt.held(t, d, "b"+strconv.Itoa(i), "ann", true))
		lt.held(t, d, "a", "bob", false)
		lt.unlock(t, d, "a", "ann", lock.Done)
	}
	shut(t, lt.d)
	shut(t, lt.other)
	lt.d = lt.open(t)
	grows(lt.held(t, lt.d, "a", "ann", true))
}

// lockCrash: a process that ends leaves its lock as it was granted.
func lockCrash(t *testing.T, lt *lockTest) {
	begun := time.Now()
	if !lt.try(t, lt.d, "a", "ann", 2*lockBrief).Held {
		t.Fatal("a free lock was not granted")
	}
	lt.held(t, lt.d, "b", "ann", true)
	shut(t, lt.d)
	if lasted := lt.free(t, lt.other, "a", "bob").Sub(begun); lasted < 2*lockBrief-lockSlack {
		t.Errorf("the lock of who is gone lasted %s, want %s", lasted, 2*lockBrief)
	}
	lt.held(t, lt.other, "b", "bob", false)
	lt.d = lt.open(t) // whoever comes back under the same name has it still
	lt.unlock(t, lt.d, "b", "ann", lock.Done)
}

// lockNotes: what the holder writes down stays for the next one, and nobody
// else writes.
func lockNotes(t *testing.T, lt *lockTest) {
	read := func(d lock.Driver, want string) {
		t.Helper()
		if got, err := d.(lock.Noter).Note(t.Context(), lt.prefix+"a"); err != nil || got != want {
			t.Fatalf("note %q, %v; want %q", got, err, want)
		}
	}
	write := func(d lock.Driver, owner, text string, want lock.Status) {
		t.Helper()
		if got, err := d.(lock.Noter).SetNote(t.Context(), lt.prefix+"a", owner, text); err != nil || got != want {
			t.Fatalf("write note %q of %q: status %d, %v; want %d", text, owner, got, err, want)
		}
	}
	read(lt.d, "")
	write(lt.d, "ann", "no", lock.Missing)
	lt.held(t, lt.d, "a", "ann", true)
	read(lt.d, "")
	write(lt.d, "ann", "one", lock.Done)
	write(lt.other, "bob", "no", lock.Foreign)
	read(lt.other, "one")
	lt.renew(t, "a", "ann", lockLong, lock.Done)
	write(lt.other, "ann", "two ✓ '\"", lock.Done)
	lt.unlock(t, lt.d, "a", "ann", lock.Done)
	write(lt.d, "ann", "no", lock.Missing)
	read(lt.d, "two ✓ '\"")
	lt.held(t, lt.other, "a", "bob", true)
	write(lt.d, "ann", "no", lock.Foreign)
	lt.renew(t, "a", "bob", lockLong, lock.Done)
	read(lt.other, "two ✓ '\"")
	write(lt.other, "bob", "", lock.Done)
	read(lt.d, "")
	shut(t, lt.d)
	lt.d = lt.open(t)
	write(lt.d, "bob", "three", lock.Done)
	read(lt.other, "three")
}

func lockCancelled(t *testing.T, lt *lockTest) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if g, err := lt.d.TryLock(ctx, lt.prefix+"a", "ann", lockLong); err == nil || g.Held {
		t.Errorf("try lock with a context that has ended: %+v, %v", g, err)
	}
	if st, err := lt.d.Unlock(ctx, lt.prefix+"a", "ann"); err == nil || st != lock.Failed {
		t.Errorf("unlock with a context that has ended: %d, %v", st, err)
	}
	if st, err := lt.d.Renew(ctx, lt.prefix+"a", "ann", lockLong); err == nil || st != lock.Failed {
		t.Errorf("renew with a context that has ended: %d, %v", st, err)
	}
	lt.held(t, lt.d, "b", "ann", true) // and the store still works
}
