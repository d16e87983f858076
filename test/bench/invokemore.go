package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	streamSize   = 1 << 30
	streamRounds = 2
	streamLimit  = 0.7
	streamGrowth = 20.0 // MB
)

// zeros is a body without an end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// invokeStream measures a body of 1 GB, up and down, against two relays that copy
// the connection's bytes.
func (b *bench) invokeStream(ctx context.Context) error {
	app, stop, err := webApp(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		if size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64); err == nil {
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(zeros{}, size), make([]byte, 64<<10))
			return
		}
		fmt.Fprint(w, n)
	})
	if err != nil {
		return err
	}
	defer stop()
	_, ours, floor, end, err := b.arms(ctx, "tcp", "io.Copy relays", app)
	if err != nil {
		return err
	}
	defer end()
	web, err := b.relays(ctx, "http", "net/http proxies", app)
	if err != nil {
		return err
	}
	defer web.stop()
	for _, up := range []bool{true, false} {
		if err := b.streams(ctx, up, ours, floor, web); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) streams(ctx context.Context, up bool, ours, floor, web *chain) error {
	what := map[bool]string{true: "1 GB sent as a stream", false: "1 GB answered as a stream"}[up]
	rate, cost := map[*chain][]float64{}, map[*chain][]float64{}
	grown := 0.0
	order := []*chain{ours, floor, web}
	for n := range 1 + streamRounds {
		for _, c := range order {
			size := int64(streamSize)
			if n == 0 {
				size >>= 1 // warms up
			}
			url := "http://" + c.address + "/work"
			if c == ours {
				url = "http://" + c.address + "/v1.0/invoke/shop/method/work"
			}
			before, errBefore := c.cpu()
			began := time.Now()
			growth, err := watch(c, func() error { return stream(ctx, url, up, size) })
			length := time.Since(began)
			after, errAfter := c.cpu()
			if err := errors.Join(err, errBefore, errAfter); err != nil {
				return fmt.Errorf("%s: %w%s", c.name, err, c.said())
			}
			if n == 0 {
				continue
			}
			rate[c] = append(rate[c], float64(size)/1e6/length.Seconds())
			cost[c] = append(cost[c], (after-before).Seconds()*1e9/float64(size))
			if c == ours {
				grown = max(grown, growth)
			}
		}
		slices.Reverse(order)
	}
	share := median(rate[ours]) / median(rate[floor])
	b.table.judged(share >= streamLimit, row{
		what: what, limit: "≥ 70 % of two " + floor.name, reached: fmt.Sprintf("%.0f %%", 100*share),
		raw: fmt.Sprintf("penstock %s, floor %s MB/s; CPU %.2f, %.2f s/GB", each("%.0f", rate[ours]), each("%.0f", rate[floor]), median(cost[ours]), median(cost[floor])),
	})
	b.table.told(row{
		what: "… two " + web.name, reached: fmt.Sprintf("%.0f %% of the relays", 100*median(rate[web])/median(rate[floor])), raw: fmt.Sprintf("%s MB/s; CPU %.2f s/GB", each("%.0f", rate[web]), median(cost[web])),
	})
	b.table.judged(grown <= streamGrowth, row{
		what: "… growth of memory", limit: fmt.Sprintf("≤ %.0f MB", streamGrowth), reached: fmt.Sprintf("%.1f MB", grown), raw: "VmRSS of the sidecar that grew most",
	})
	return nil
}

// stream sends or gets a body of a size.
func stream(ctx context.Context, url string, up bool, size int64) error {
	want := size
	var body io.Reader
	if up {
		body = struct{ io.Reader }{io.LimitReader(zeros{}, size)} // of unknown length
	} else {
		url += "?size=" + strconv.FormatInt(size, 10)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got int64
	if up {
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		got, _ = strconv.ParseInt(string(text), 10, 64)
	} else if got, err = io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || got != want {
		return fmt.Errorf("%s, %d bytes of %d", resp.Status, got, want)
	}
	return nil
}

// watch tells how much the memory of a process grew at most while do ran.
func watch(c *chain, do func() error) (grown float64, err error) {
	before := make([]float64, len(c.all))
	for i, p := range c.all {
		if before[i], err = p.memory(); err != nil {
			return 0, err
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for i, p := range c.all {
				if now, err := p.memory(); err == nil {
					grown = max(grown, now-before[i])
				}
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	err = do()
	close(done)
	wg.Wait()
	return grown, err
}

const (
	overloadSlots  = 8
	overloadWork   = 20 * time.Millisecond
	overloadFor    = 6 * time.Second
	overloadWait   = time.Second // what a caller waits
	overloadFactor = 2
	overloadLimit  = 0.9
)

// invokeOverload offers twice what an app can do and counts what is answered in
// time: callers give up after a second.
func (b *bench) invokeOverload(ctx context.Context) error {
	app, stop, err := webApp(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(overloadWork)
	})
	if err != nil {
		return err
	}
	defer stop()
	_, port, _ := net.SplitHostPort(app)
	c, err := b.sidecars(ctx, port, "", "--app-max-concurrency", strconv.Itoa(overloadSlots))
	if err != nil {
		return err
	}
	defer c.stop()
	transport := &http.Transport{MaxIdleConnsPerHost: 4096}
	client := &http.Client{Timeout: overloadWait, Transport: transport}
	defer transport.CloseIdleConnections()
	url := "http://" + c.address + "/v1.0/invoke/shop/method/work"
	call := func() bool {
		resp, err := client.Post(url, "text/plain", nil)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusOK
	}
	peak := closed(2*overloadSlots, overloadFor/2, call)
	good, offered := opened(overloadFactor*peak, overloadFor, call)
	after := closed(2*overloadSlots, overloadFor/2, call)
	raw := fmt.Sprintf("peak %.0f/s, offered %.0f/s, answered in time %.0f/s, afterwards %.0f/s", peak, offered, good, after)
	b.table.judged(good >= overloadLimit*peak, row{
		what: "calls answered within 1 s, at twice what the app can do", limit: "≥ 90 % of the peak", reached: fmt.Sprintf("%.0f %%", 100*good/peak), raw: raw,
	})
	return nil
}

// closed calls with that many callers for a while and returns the rate of success.
func closed(callers int, d time.Duration, call func() bool) float64 {
	var n atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for time.Since(began) < d {
				if call() {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}

// opened starts calls at a rate, whatever becomes of those before, and returns the
// rate of success among those of the second half.
func opened(rate float64, d time.Duration, call func() bool) (good, offered float64) {
	var n atomic.Int64
	var wg sync.WaitGroup
	began, sent, late := time.Now(), 0, 0
	for time.Since(began) < d {
		for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
			counts := time.Since(began) > d/2
			if counts {
				late++
			}
			wg.Go(func() {
				if call() && counts {
					n.Add(1)
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
	}
	wg.Wait()
	return float64(n.Load()) / (d / 2).Seconds(), float64(late) / (d / 2).Seconds()
}
