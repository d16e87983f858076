package sftp

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	client "github.com/penstock-io/penstock/client/sftp"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxJobs    = 64
	workers    = 8
	maxBytes   = 64 << 20 // of contents under way
	maxTracked = 100_000
	idlePause  = time.Hour

	// callTimeout is for one short piece of work on the server.
	callTimeout = 30 * time.Second
)

// inbox is the driver of a binding that takes files. Read runs at most once at a
// time.
type inbox struct {
	*output
	env     component.Env
	options options
	folder  string // the inbox, absolute
	bytes   *semaphore.Weighted

	reading sync.Mutex
	scanner scanner // used by Read only

	wake   chan struct{} // something may be handed over
	finish chan struct{} // something is done
	stop   context.CancelFunc
	work   sync.WaitGroup // what runs between open and Close

	turn sync.Mutex // held by who makes or gives up the claim folder

	mu     sync.Mutex // guards what follows, and the jobs
	jobs   map[string]*job
	own    string // the folder of this process's claims; empty: to be made
	unsure bool   // a claim may have worked that is not known of
	closed bool
	cancel context.CancelFunc // of the running Read
}

// job is one file that this process has taken. Its fields are guarded by
// inbox.mu, but name and claim.
type job struct {
	name     string
	claim    string // where it is now, absolute
	identity identity
	attempt  int // retries so far
	faults   int // times it could not be read, one after the other
	due      time.Time
	state    state
	failed   string // why it is given up
	stuck    bool   // that it cannot be put away was logged
}

// identity changes when a file is written to.
type identity struct {
	size    int64
	modTime int64 // seconds
}

type state uint8

const (
	waiting state = iota // to be handed over at due
	flying               // with the router
	left                 // to be handed over by the next Read
	done                 // to be put away
)

func openInbox(ctx context.Context, env component.Env, o options, out *output) *inbox {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &inbox{
		output: out, env: env, options: o, folder: path.Join(out.root, o.Inbox),
		bytes:   semaphore.NewWeighted(maxBytes),
		scanner: scanner{seen: map[string]*sighting{}},
		wake:    make(chan struct{}, 1), finish: make(chan struct{}, 1),
		stop: stop, jobs: map[string]*job{},
	}
	b.work.Go(func() { b.finishLoop(ctx) })
	b.work.Go(func() { b.beatLoop(ctx) })
	return b
}

// Read implements bindings.Reader.
func (b *inbox) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	if !b.reading.TryLock() {
		return fault.New(fault.Conflict, "read folder: somebody else does already")
	}
	defer b.reading.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.begin(cancel); err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	todo := make(chan *job)
	for range workers {
		group.Go(func() error {
			for {
				select {
				case <-inner.Done():
					return nil
				case j := <-todo:
					if err := b.handOver(inner, emit, j); err != nil {
						return err
					}
				}
			}
		})
	}
	group.Go(func() error { return b.look(inner, todo) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin makes files that were left due again.
func (b *inbox) begin(cancel context.CancelFunc) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fault.New(fault.Unavailable, "read folder: the binding is closed")
	}
	b.cancel = cancel
	for _, j := range b.jobs {
		if j.state == left {
			j.state, j.due = waiting, time.Time{}
		}
	}
	b.unsure = true // a Read before this one may have ended in the middle
	return nil
}

// look takes files as they become stable and gives them to the workers when they
// are due.
func (b *inbox) look(ctx context.Context, todo chan<- *job) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next time.Time
	for ctx.Err() == nil {
		if !time.Now().Before(next) {
			wait, err := b.scan(ctx)
			if err != nil {
				return err
			}
			next = time.Now().Add(wait)
		}
		if err := b.claimReady(ctx); err != nil {
			return err
		}
		j, wait := b.choose()
		timer.Reset(min(wait, time.Until(next)))
		var to chan<- *job
		if j != nil {
			to = todo
		}
		sent := false
		select {
		case <-ctx.Done():
		case to <- j:
			sent = true
		case <-timer.C:
		case <-b.wake:
		}
		if j != nil && !sent {
			b.back(j)
		}
	}
	return nil
}

// choose returns the file to hand over next, or how long until one is due.
func (b *inbox) choose() (*job, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, wait := time.Now(), idlePause
	var first *job
	for _, j := range b.jobs {
		if j.state != waiting {
			continue
		}
		if pause := j.due.Sub(now); pause > 0 {
			wait = min(wait, pause)
		} else if first == nil || j.before(first) {
			first = j
		}
	}
	if first != nil {
		first.state, wait = flying, idlePause
	}
	return first, wait
}

func (j *job) before(other *job) bool {
	return cmp.Or(cmp.Compare(j.identity.modTime, other.identity.modTime), strings.Compare(j.name, other.name)) < 0
}

// back makes a file that was not handed over due again.
func (b *inbox) back(j *job) { b.later(j, 0) }

// later makes a file that was not handed over due after a pause.
func (b *inbox) later(j *job, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j.state, j.due = waiting, time.Now().Add(pause)
	if pause == 0 {
		j.due = time.Time{}
	}
	ring(b.wake)
}

// scanner is what one look at the folder leaves for the next.
type scanner struct {
	seen    map[string]*sighting
	ready   []candidate // stable and not taken, in the order to take them
	round   int
	adopted time.Time // when the claims of others were looked at
}

// sighting is when a file was first seen as it is now.
type sighting struct {
	identity identity
	since    time.Time
	round    int
}

type candidate struct {
	name     string
	identity identity
}

// scan looks at every name in the folder, notes which files are stable, and
// returns when to look again.
func (b *inbox) scan(ctx context.Context) (time.Duration, error) {
	if err := b.adopt(ctx); err != nil {
		return 0, err
	}
	s := &b.scanner
	s.round++
	s.ready = s.ready[:0]
	files, err := b.listing(ctx, b.folder)
	if err != nil {
		return 0, fault.Wrap(err, "list folder %q", b.options.Inbox)
	}
	now, next := time.Now(), b.options.Interval
	for _, f := range files {
		if wait := b.sight(f, now); wait > 0 {
			next = min(next, wait)
		}
	}
	for name, seen := range s.seen {
		if seen.round != s.round {
			delete(s.seen, name)
		}
	}
	slices.SortFunc(s.ready, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.identity.modTime, y.identity.modTime), strings.Compare(x.name, y.name))
	})
	return next, nil
}

// listing returns the ordinary files in a folder.
func (b *inbox) listing(ctx context.Context, folder string) ([]candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	return client.Do(ctx, b.client, func(s *sftp.Client) ([]candidate, error) {
		infos, err := s.ReadDir(folder)
		if err != nil {
			return nil, err
		}
		var files []candidate
		for _, info := range infos {
			if info.Mode().IsRegular() {
				files = append(files, candidate{info.Name(), identity{info.Size(), info.ModTime().Unix()}})
			}
		}
		return files, nil
	})
}

// sight notes one file. It returns how long it takes until it may be stable,
// zero when that is not to be waited for.
func (b *inbox) sight(f candidate, now time.Time) time.Duration {
	s := &b.scanner
	if !b.wanted(f.name) || b.busy(f.name) {
		return 0
	}
	seen := s.seen[f.name]
	if seen == nil {
		if len(s.seen) >= maxTracked {
			return 0 // its turn comes when others are done
		}
		seen = &sighting{identity: f.identity, since: now}
		s.seen[f.name] = seen
	}
	seen.round = s.round
	if seen.identity != f.identity {
		seen.identity, seen.since = f.identity, now
	}
	if age := now.Sub(seen.since); age < b.options.StableFor {
		return b.options.StableFor - age
	}
	s.ready = append(s.ready, f)
	return 0
}

func (b *inbox) wanted(name string) bool {
	if strings.HasPrefix(name, ".") || strings.Contains(name, "/") {
		return false
	}
	lower := strings.ToLower(name)
	for _, end := range b.options.Unfinished {
		if end != "" && strings.HasSuffix(lower, strings.ToLower(end)) {
			return false
		}
	}
	ok, _ := path.Match(b.options.Pattern, name) // Check refuses bad patterns
	return ok
}

func (b *inbox) busy(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[name] != nil
}

func (b *inbox) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.jobs) >= maxJobs
}

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
