package file

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	forgetEvery = time.Hour
	maxTold     = 1000
)

// scanner is what one look at the folder leaves for the next.
type scanner struct {
	tracked map[string]*sighting
	ready   []candidate // stable and not begun, in the order to begin them
	round   int
	took    time.Duration // the last look
	forgot  time.Time
	told    map[string]string // what was logged about a name
}

// sighting is when a file was first seen as it is now.
type sighting struct {
	identity identity
	since    time.Time
	known    bool // there is nothing to do
	round    int
}

type candidate struct {
	name     string
	identity identity
}

// Read hands out the files of the folder until ctx ends.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	if !b.reading.TryLock() {
		return fault.New(fault.Conflict, "read folder: somebody else does already")
	}
	defer b.reading.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.begin(cancel); err != nil {
		return err
	}
	w := b.watch()
	if w != nil {
		defer w.Close()
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return b.look(inner, group, emit, w) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin makes events that were left due again.
func (b *binding) begin(cancel context.CancelFunc) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fault.New(fault.Unavailable, "read folder: the binding is closed")
	}
	if b.lock == nil {
		lock, err := takeFolder(b.options.Path)
		if err != nil {
			return err
		}
		b.lock = lock
	}
	b.cancel = cancel
	for _, j := range b.jobs {
		for _, it := range j.items {
			if it.state == left {
				it.state, it.due = waiting, time.Time{}
			}
		}
	}
	return nil
}

// watch returns a watcher of the folder; nil when there is none to be had, and
// the folder is looked through every interval all the same.
func (b *binding) watch() *fsnotify.Watcher {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(b.options.Path); err == nil {
			return w
		}
		_ = w.Close() // the first error says more
	}
	b.env.Logger.Warn("folder cannot be watched, looking through it every interval", "interval", b.options.Interval, "error", err)
	return nil
}

// look begins files as they become stable.
func (b *binding) look(ctx context.Context, group *errgroup.Group, emit cloudevents.EmitFunc, w *fsnotify.Watcher) error {
	var events <-chan fsnotify.Event
	var lost <-chan error
	if w != nil {
		events, lost = w.Events, w.Errors
	}
	start := func(j *job) {
		group.Go(func() error { return b.work(ctx, emit, j) })
	}
	for _, j := range b.unfinished() {
		start(j)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time
	for {
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			wait, err := b.scan(ctx)
			if err != nil {
				return err
			}
			due = time.Now().Add(wait)
		case <-b.wakeScan:
		case e, ok := <-events:
			if !ok {
				events = nil
			}
			if e.Has(fsnotify.Create) || e.Has(fsnotify.Write) || e.Has(fsnotify.Chmod) {
				due = soonest(due, time.Now().Add(b.gap()))
			}
			continue
		case _, ok := <-lost: // some events, with what they said
			if !ok {
				lost = nil
			}
			due = soonest(due, time.Now().Add(b.gap()))
			continue
		}
		if err := b.beginReady(ctx, start); err != nil {
			return err
		}
	}
}

func soonest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// gap is how soon after an event the folder is looked through: so that a folder
// full of files does not keep a processor busy when many of them change.
func (b *binding) gap() time.Duration {
	return max(min(b.options.StableFor, 100*time.Millisecond), 5*time.Millisecond, 10*b.scanner.took)
}

// unfinished returns the files that an earlier Read did not come to the end of.
func (b *binding) unfinished() (js []*job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if !j.read || len(j.items) > 0 {
			js = append(js, j)
		}
	}
	return js
}

// scan looks at every name in the folder, notes which files are ready, and
// returns when to look again.
func (b *binding) scan(ctx context.Context) (time.Duration, error) {
	s := &b.scanner
	began := time.Now()
	s.round++
	s.ready = nil
	next := b.options.Interval
	dir, err := b.root.Open(".")
	if err != nil {
		return 0, fault.Wrap(err, "open folder")
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			if wait := b.sight(e, began); wait > 0 {
				next = min(next, wait)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fault.Wrap(err, "list folder")
		}
		if ctx.Err() != nil {
			return next, nil
		}
	}
	for name, seen := range s.tracked {
		if seen.round != s.round {
			delete(s.tracked, name)
			delete(s.told, name)
		}
	}
	slices.SortFunc(s.ready, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.identity.modTime, y.identity.modTime), strings.Compare(x.name, y.name))
	})
	s.took = time.Since(began)
	return next, b.forget(ctx)
}

// sight notes one name. It returns how long it takes until the file may be
// stable, zero when that is not to be waited for.
func (b *binding) sight(e fs.DirEntry, now time.Time) time.Duration {
	s, name := &b.scanner, e.Name()
	if !b.wanted(name) || e.IsDir() || b.busy(name) {
		return 0
	}
	info, err := e.Info()
	if err != nil {
		return 0 // gone by now
	}
	ident := identify(info)
	seen := s.tracked[name]
	if seen == nil {
		if len(s.tracked) >= maxTracked && !s.evict() {
			return 0 // its turn comes when others are done
		}
		seen = &sighting{}
		s.tracked[name] = seen
	}
	seen.round = s.round
	if seen.identity != ident || seen.since.IsZero() {
		*seen = sighting{identity: ident, since: now, round: s.round}
	}
	if !info.Mode().IsRegular() {
		b.tell(name, "is no ordinary file, not read")
		return 0
	}
	if seen.known {
		return 0
	}
	if age := now.Sub(seen.since); age < b.options.StableFor {
		return b.options.StableFor - age
	}
	s.ready = append(s.ready, candidate{name, ident})
	return 0
}

// evict makes room by forgetting a file with which nothing is to be done.
func (s *scanner) evict() bool {
	for name, seen := range s.tracked {
		if seen.known {
			delete(s.tracked, name)
			return true
		}
	}
	return false
}

func (b *binding) wanted(name string) bool {
	lower := strings.ToLower(name)
	if strings.HasPrefix(name, ".") || strings.HasSuffix(lower, ".tmp") || strings.HasSuffix(lower, ".part") {
		return false
	}
	ok, _ := filepath.Match(b.options.Pattern, name) // Check refuses bad patterns
	return ok
}

func (b *binding) busy(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[name] != nil
}

// tell logs what is the matter with a file, once until that changes.
func (b *binding) tell(name, what string) {
	told := b.scanner.told
	if told[name] == what || len(told) >= maxTold {
		return
	}
	told[name] = what
	b.env.Logger.Warn("file "+what, "file", name)
}

// beginReady begins files that are ready, as many as there is room for.
func (b *binding) beginReady(ctx context.Context, start func(*job)) error {
	s := &b.scanner
	for len(s.ready) > 0 && !b.full() && ctx.Err() == nil {
		c := s.ready[0]
		s.ready = s.ready[1:]
		if b.busy(c.name) {
			continue
		}
		r, err := b.ledger.find(ctx, c.name)
		if err != nil {
			return err
		}
		b.beginFile(c, r, start)
	}
	return nil
}

func (b *binding) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.jobs) >= maxJobs
}

// beginFile begins one file of which r is remembered.
func (b *binding) beginFile(c candidate, r *record, start func(*job)) {
	over := r != nil && r.identity == c.identity && r.state != stateReading
	if over && b.options.After == keep {
		if seen := b.scanner.tracked[c.name]; seen != nil {
			seen.known = true
		}
		return
	}
	j, err := b.newJob(c, r)
	if err != nil {
		b.tell(c.name, "cannot be read: "+err.Error())
		return
	}
	if j == nil {
		return // changed or gone since it was looked at
	}
	b.mu.Lock()
	b.jobs[c.name] = j
	b.mu.Unlock()
	if over {
		ring(b.wakeFinish)
	} else {
		start(j)
	}
}

// forget drops what is remembered about files that are no more, now and then.
func (b *binding) forget(ctx context.Context) error {
	s := &b.scanner
	if !s.forgot.IsZero() && time.Since(s.forgot) < forgetEvery {
		return nil
	}
	s.forgot = time.Now()
	return b.ledger.forget(ctx, func(name string) bool {
		_, err := b.root.Lstat(name)
		return !errors.Is(err, fs.ErrNotExist) || b.busy(name)
	})
}
