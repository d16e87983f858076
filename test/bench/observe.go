package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	tracedLimit  = 1.05
	watchedLimit = 1.03
	viewers      = 10
	// Differences this small need more segments than those of deliver.
	observedPairs = 30
)

const notObserved = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: settings}
spec:
  metric: {enabled: false}
  tracing: {samplingRate: "0"}
`

const observed = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: settings}
spec:
  metric: {enabled: true}
  tracing:
    samplingRate: "0.01"
    otel: {endpointAddress: %q, isSecure: false, protocol: http}
`

// traced measures what metrics and traces of one event in a hundred cost, which
// go to a collector.
func (b *bench) traced(ctx context.Context) error {
	a, err := newReceiver(lanesWide)
	if err != nil {
		return err
	}
	defer a.close()
	a.subscriptions = []map[string]any{{"pubsubname": "bus", "topic": "events", "route": "/events"}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	collector := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})}
	go func() { _ = collector.Serve(l) }()
	defer collector.Close()
	with, err := b.observedArm(ctx, a, fmt.Sprintf(observed, l.Addr()))
	if err != nil {
		return err
	}
	defer with.process.stop()
	without, err := b.observedArm(ctx, a, notObserved)
	if err != nil {
		return err
	}
	defer without.process.stop()
	return b.pairs(ctx, a, []*arm{with, without}, row{what: "CPU of an event with metrics and 1 % traced", limit: "≤ 1.05 × with neither"}, tracedLimit)
}

// watched measures what the pages of the console cost that are open.
func (b *bench) watched(ctx context.Context) error {
	a, err := newReceiver(lanesWide)
	if err != nil {
		return err
	}
	defer a.close()
	a.subscriptions = []map[string]any{{"pubsubname": "bus", "topic": "events", "route": "/events"}}
	console, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(console)
	with, err := b.observedArm(ctx, a, "", "--console-port", port)
	if err != nil {
		return err
	}
	defer with.process.stop()
	spare, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ = net.SplitHostPort(spare)
	without, err := b.observedArm(ctx, a, "", "--console-port", port)
	if err != nil {
		return err
	}
	defer without.process.stop()
	seen, end, err := open(ctx, console, filepath.Join(with.process.cmd.Dir, "data"))
	if err != nil {
		return err
	}
	defer end()
	err = b.pairs(ctx, a, []*arm{with, without}, row{
		what: fmt.Sprintf("CPU of an event with %d pages of the console open", viewers), limit: "≤ 1.03 × with none",
	}, watchedLimit)
	if err == nil && seen() == 0 {
		err = errors.New("no page saw anything")
	}
	return err
}

func (b *bench) observedArm(ctx context.Context, a *receiver, settings string, args ...string) (*arm, error) {
	dir, err := os.MkdirTemp(b.dir, "observe")
	if err != nil {
		return nil, err
	}
	if err := writeResources(dir, inMemoryBus); err != nil {
		return nil, err
	}
	metrics, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(metrics)
	args = append(args, "--resources-path", dir+"/resources", "--app-port", a.port(), "--metrics-port", port)
	if settings != "" {
		file := filepath.Join(dir, "settings.yaml")
		if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", file)
	}
	p, err := b.serve(dir, args...)
	if err != nil {
		return nil, err
	}
	return newArm(ctx, p, "/v1.0/publish/bus/events")
}

// pairs loads two arms in turns and judges the median of the ratios of their CPU
// time.
func (b *bench) pairs(ctx context.Context, a *receiver, arms []*arm, what row, limit float64) error {
	for _, one := range arms {
		if _, err := a.flow(ctx, one.publishers, 2*time.Second); err != nil {
			return fmt.Errorf("warm up: %w\n%s", err, one.process.log.tail())
		}
	}
	ratios := make([]float64, observedPairs)
	for n := range ratios {
		for k := range arms { // A B, B A, ...
			if err := arms[(k+n)%2].segment(ctx, a); err != nil {
				return err
			}
		}
		ratios[n] = arms[0].cost[n] / arms[1].cost[n]
	}
	what.reached = fmt.Sprintf("%.3f ×", median(ratios))
	what.raw = fmt.Sprintf("%.1f and %.1f µs/event, %.0f events/s; %s", median(arms[0].cost), median(arms[1].cost), median(arms[0].rate), each("%.2f", ratios))
	b.table.judged(median(ratios) <= limit, what)
	return nil
}
