package names

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Bounds of a [Directory].
const (
	// MaxApps is how many apps are remembered; the one that was asked for longest
	// ago makes room.
	MaxApps = 1024
	// MaxInstances is how many instances of one app are used.
	MaxInstances = 512
	// maxLookups is how many questions are put to the resolver at a time.
	maxLookups = 32

	// fresh is how long an answer is used without a new question.
	fresh = 2 * time.Second
	// stale is how long an answer is used while the next one is waited for.
	stale = 30 * time.Second
	// missing is how long an app is taken for absent without a new question.
	missing = time.Second
	// failing is the pause after a question that the resolver did not answer, or
	// after which an instance was found to be away.
	failing = 500 * time.Millisecond
	// lookupTimeout is for one question.
	lookupTimeout = 5 * time.Second
)

// Directory finds instances of apps: the type everybody but implementations
// uses. All methods may be used by many goroutines. The resolver behind it can
// be exchanged at any time.
type Directory struct {
	logger *slog.Logger
	source atomic.Pointer[source]
}

// New makes a directory that knows nobody before Use.
func New(logger *slog.Logger) *Directory {
	d := &Directory{logger: logger}
	d.source.Store(newSource(nil))
	return d
}

// Use makes i the resolver from the next Pick on; nil is none. Running and
// closing i is the caller's. What is under way with the one before, being
// announced there too, has ended when Use returns; the caller may close it.
func (d *Directory) Use(i *component.Instance[Driver]) {
	d.source.Swap(newSource(i)).end()
}

// Pick chooses an instance of the app and returns the address, host:port, of its
// internal gRPC server. The caller calls done exactly once when its call is over:
// with nil when the instance has answered, whatever the answer was; else with
// the error of reaching it. Instances that cannot be reached (Unavailable), or
// that let three calls in a row run into their time-out (Timeout), are left
// alone for a while unless there is no other; a call that ended because its
// context was cancelled says nothing of the instance.
//
// Kinds: NotFound when the app has no instance; Timeout or Unavailable when
// ctx ended first; the rest from the resolver. It waits for the resolver only
// when it knows nothing of the last 30 s, or nobody that could be reached.
func (d *Directory) Pick(ctx context.Context, app App) (address string, done func(error), err error) {
	for {
		s := d.source.Load()
		p, done, err := s.pick(ctx, app)
		switch {
		case err == nil:
			return p.address, done, nil
		case d.source.Load() == s || ctx.Err() != nil:
			return "", nil, err
		}
	}
}

// Announce makes self findable until ctx ends, through whichever resolver is in
// use, and takes it back. Resolvers that find nobody by announcement are left
// alone; one that fails is tried again, after pauses of up to 15 s. The error is
// only ever nil.
func (d *Directory) Announce(ctx context.Context, self Self) error {
	for ctx.Err() == nil {
		s := d.source.Load()
		s.announce(ctx, self, d.logger)
		select {
		case <-ctx.Done():
		case <-s.ended:
		}
	}
	return nil
}

// none is the error of a directory without a resolver.
func none(app App) error {
	return fault.New(fault.NotFound, "find app %q: this process has no name resolution", short(app.ID))
}

// short is an id for an error text.
func short(id string) string {
	const most = 100
	if len(id) > most {
		return id[:most] + "..."
	}
	return id
}
