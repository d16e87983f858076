package oauth2clientcredentials

import (
	"context"
	"sync"
	"time"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/fault"
)

const (
	// early is how long before its end a token is not sent any more, ahead how
	// long before it the next is fetched.
	early = 5 * time.Second
	ahead = time.Minute
	// pause is how often a token is asked for that the server does not give.
	pause = time.Second
)

// token is the one token of a middleware, fetched again before it ends.
type token struct {
	fetch   func(context.Context) (client.Grant, error)
	ctx     context.Context // of fetches; ends with close
	stop    context.CancelFunc
	fetches sync.WaitGroup

	mu      sync.Mutex
	grant   client.Grant
	err     error         // of the last fetch
	again   time.Time     // when the next fetch may begin
	pending chan struct{} // closed when the fetch under way has ended; nil: there is none
	closed  bool
}

func newToken(ctx context.Context, fetch func(context.Context) (client.Grant, error)) *token {
	t := &token{fetch: fetch}
	t.ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	return t
}

func (t *token) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.fetches.Wait()
}

// get returns the value of the header. Without a token that counts, the fetch
// under way is waited for, but for no longer than the request lives.
func (t *token) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	if now := time.Now(); t.pending == nil && !t.closed && !now.Before(t.again) {
		t.begin()
	}
	value, pending := t.value(), t.pending
	t.mu.Unlock()
	if value != "" || pending == nil {
		return t.result()
	}
	select {
	case <-pending:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return t.result()
}

func (t *token) result() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value := t.value(); value != "" {
		return value, nil
	}
	if t.err == nil {
		return "", fault.New(fault.Unavailable, "fetch token: the one that came has ended already")
	}
	return "", t.err
}

// value is the token if it counts; the caller holds mu.
func (t *token) value() string {
	if t.grant.Ends.IsZero() || time.Until(t.grant.Ends) > early {
		return t.grant.Header
	}
	return ""
}

// begin fetches in the background; the caller holds mu.
func (t *token) begin() {
	done := make(chan struct{})
	t.pending = done
	t.fetches.Go(func() {
		g, err := t.fetch(t.ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		now := time.Now()
		if t.err = err; err == nil {
			t.grant, t.again = g, next(now, g.Ends)
		} else {
			t.again = now.Add(pause)
		}
		t.pending = nil
		close(done)
	})
}

// next is when the token is fetched that follows one that ends then.
func next(now, ends time.Time) time.Time {
	if ends.IsZero() {
		return now.Add(time.Hour) // it may have been taken back
	}
	life := ends.Sub(now)
	return now.Add(max(life-max(min(ahead, life/10), early), pause))
}
