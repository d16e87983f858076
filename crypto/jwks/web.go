package jwks

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/crypto/keys"
	"github.com/penstock-io/penstock/fault"
)

// web is a set that a server gives out.
type web struct {
	url       string
	timeout   time.Duration
	log       *slog.Logger
	transport http.RoundTripper
	set       atomic.Pointer[keys.Set]

	stop   context.CancelFunc
	asking sync.WaitGroup
}

// openWeb asks once; a server that cannot be reached is a retriable error.
func openWeb(ctx context.Context, log *slog.Logger, address string, o options) (*web, error) {
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return nil, fault.New(fault.Invalid, "read option jwks: it is no URL that can be asked")
	}
	w := &web{url: address, timeout: o.RequestTimeout, log: log}
	w.transport = clienthttp.NewTransport(clienthttp.Options{UseProxy: true})
	if err := w.start(ctx, o.RefreshInterval); err != nil {
		w.idle()
		return nil, err
	}
	return w, nil
}

// start asks once, and from then on at the interval.
func (w *web) start(ctx context.Context, interval time.Duration) error {
	set, err := w.ask(ctx)
	if err != nil {
		return err
	}
	w.set.Store(&set)
	ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	w.asking.Go(func() { w.refresh(ctx, interval) })
	return nil
}

// idle closes connections that nothing waits for.
func (w *web) idle() { (&http.Client{Transport: w.transport}).CloseIdleConnections() }

func (w *web) current() keys.Set { return *w.set.Load() }

func (w *web) close() {
	w.stop()
	w.asking.Wait()
	w.idle()
}

// refresh asks at the interval until ctx ends. What goes wrong is logged once,
// until it goes right again.
func (w *web) refresh(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		set, err := w.ask(ctx)
		switch {
		case err == nil:
			w.set.Store(&set)
			failing = false
		case ctx.Err() == nil && !failing:
			w.log.Warn("key set cannot be read anew, going on with what was read before", "error", err)
			failing = true
		}
	}
}

// ask makes one request.
func (w *web) ask(ctx context.Context) (keys.Set, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read option jwks: it is no URL that can be asked")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	client := http.Client{Transport: w.transport}
	res, err := client.Do(r)
	if err != nil {
		return nil, fault.Wrap(err, "ask for key set")
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		err := fault.New(fault.Unavailable, "ask for key set: the server answered %d", res.StatusCode)
		return nil, fault.WithRetryAfter(err, clienthttp.RetryAfter(res.Header, time.Now()))
	}
	data, err := clienthttp.ReadBody(res.Body, maxSize)
	if err != nil {
		return nil, fault.Wrap(err, "ask for key set")
	}
	set, err := keys.ParseSet(data)
	return set, fault.Wrap(err, "ask for key set")
}
