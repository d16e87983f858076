package names

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// source is one resolver with what is known through it.
type source struct {
	instance *component.Instance[Driver] // nil: none
	places   chan struct{}               // one for each question under way
	ended    chan struct{}               // closed by end

	mu      sync.RWMutex // guards what follows
	over    bool
	entries map[App]*entry
	cancels map[*context.CancelFunc]struct{}
	running sync.WaitGroup // of begin
}

func newSource(i *component.Instance[Driver]) *source {
	return &source{
		instance: i, places: make(chan struct{}, maxLookups), ended: make(chan struct{}),
		entries: map[App]*entry{}, cancels: map[*context.CancelFunc]struct{}{},
	}
}

// pick is [Directory.Pick] through this resolver.
func (s *source) pick(ctx context.Context, app App) (*peer, func(error), error) {
	e, err := s.entry(app)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	v := e.view.Load()
	switch {
	case v == nil || now.After(v.until) || e.due(v, now) && e.doubt.Load() && v.away():
		if v, err = s.await(ctx, e); err != nil {
			return nil, nil, err
		}
		now = time.Now()
	case e.due(v, now):
		s.look(ctx, e)
	}
	if v.err != nil {
		return nil, nil, v.err
	}
	p, done := v.pick(now)
	return p, done, nil
}

// entry returns what is known of an app, making room for it when it is new.
func (s *source) entry(app App) (*entry, error) {
	s.mu.RLock()
	e := s.entries[app]
	s.mu.RUnlock()
	if e != nil {
		return e, nil
	}
	if s.instance == nil {
		return nil, none(app)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[app]; e != nil {
		return e, nil
	}
	if len(s.entries) >= MaxApps && !s.forget() {
		return nil, fault.New(fault.Exhausted, "find app %q: %d apps are being looked for", short(app.ID), MaxApps)
	}
	e = &entry{app: app}
	s.entries[app] = e
	return e, nil
}

// forget drops the entry that was asked about longest ago. The caller holds mu.
func (s *source) forget() bool {
	var oldest *entry
	for _, e := range s.entries {
		if e.idle() && (oldest == nil || e.since().Before(oldest.since())) {
			oldest = e
		}
	}
	if oldest != nil {
		delete(s.entries, oldest.app)
	}
	return oldest != nil
}

// await asks the resolver, or joins a question under way, and returns the answer.
func (s *source) await(ctx context.Context, e *entry) (*view, error) {
	select {
	case <-s.look(ctx, e):
	case <-ctx.Done():
		return nil, fault.Wrap(ctx.Err(), "find app %q", short(e.app.ID))
	}
	if v := e.view.Load(); v != nil {
		return v, nil
	}
	return nil, fault.New(fault.Unavailable, "find app %q: name resolution was exchanged or closed", short(e.app.ID))
}

// look puts a question to the resolver in the background, unless one is under
// way. The channel is closed when it has ended.
func (s *source) look(ctx context.Context, e *entry) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.looking != nil {
		return e.looking
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	ctx, done, ok := s.begin(ctx)
	looking := make(chan struct{})
	if !ok {
		cancel()
		close(looking)
		return looking
	}
	e.looking = looking
	go func() {
		defer done()
		defer cancel()
		addresses, err := s.resolve(ctx, e.app)
		e.learn(addresses, err)
	}()
	return looking
}

// resolve asks once, when it is this question's turn.
func (s *source) resolve(ctx context.Context, app App) ([]string, error) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if _, err := s.instance.Await(ctx); err != nil {
		return nil, err
	}
	d, err := s.instance.Acquire()
	if err != nil {
		return nil, err
	}
	defer s.instance.Release()
	addresses, err := d.Resolve(ctx, app)
	if err != nil {
		return nil, s.instance.Hide(err)
	}
	slices.Sort(addresses)
	addresses = slices.DeleteFunc(slices.Compact(addresses), func(a string) bool { return a == "" })
	if len(addresses) == 0 {
		return nil, fault.New(fault.NotFound, "no instance is known")
	}
	return addresses[:min(len(addresses), MaxInstances)], nil
}

// announce announces self until ctx or the source ends.
func (s *source) announce(ctx context.Context, self Self, logger *slog.Logger) {
	if s.instance == nil {
		return
	}
	ctx, done, ok := s.begin(ctx)
	if !ok {
		return
	}
	defer done()
	if _, err := s.instance.Await(ctx); err != nil {
		return // whoever runs the instance says so
	}
	d, err := s.instance.Acquire()
	if err != nil {
		return
	}
	defer s.instance.Release()
	a, ok := d.(Announcer)
	if !ok {
		return
	}
	const most = 15 * time.Second
	said := ""
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, most) {
		err := a.Announce(ctx, self)
		if ctx.Err() != nil {
			if err != nil {
				logger.Warn("App may still be announced", "error", s.instance.Hide(err))
			}
			return
		}
		if err = s.instance.Hide(err); err != nil && err.Error() != said {
			said = err.Error()
			logger.Warn("App cannot be found by others, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// begin starts something that end waits for; its context ends with the source.
func (s *source) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return ctx, nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	s.cancels[&cancel] = struct{}{}
	s.running.Add(1)
	return ctx, func() {
		cancel()
		s.mu.Lock()
		delete(s.cancels, &cancel)
		s.mu.Unlock()
		s.running.Done()
	}, true
}

// end ends what is under way and waits for it.
func (s *source) end() {
	s.mu.Lock()
	s.over = true
	for cancel := range s.cancels {
		(*cancel)()
	}
	s.mu.Unlock()
	s.running.Wait()
	close(s.ended)
}
