package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const (
	secureLimit   = 1.15
	secureCallers = 16
)

// identities issues what the two sidecars prove, and returns the folder with a
// folder for each app.
func (b *bench) identities(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "identity")
	if err != nil {
		return "", err
	}
	program, err := filepath.Abs(b.penstock)
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{{"init"}, {"issue", "--app-id", "shop"}, {"issue", "--app-id", "bench"}} {
		cmd := exec.CommandContext(ctx, program, append([]string{"ca"}, append(args, "--dir", dir)...)...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("issue identities: %w: %s", err, text)
		}
	}
	return filepath.Join(dir, "default"), nil
}

// invokeSecure measures what mutual TLS between two sidecars costs calls on
// connections that are open.
func (b *bench) invokeSecure(ctx context.Context) error {
	folder, err := b.identities(ctx)
	if err != nil {
		return err
	}
	reply := bytes.Repeat([]byte("y"), invokeBody)
	web, stop, err := webApp(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(reply)
	})
	if err != nil {
		return err
	}
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() { _ = serveRaw(l, echo) }()
	for _, kind := range []struct {
		name, app string
		args      []string
	}{{"HTTP", web, nil}, {"gRPC", l.Addr().String(), []string{"--app-protocol", "grpc"}}} {
		if err := b.secured(ctx, kind.name, folder, kind.app, kind.args...); err != nil {
			return err
		}
	}
	return nil
}

// secured runs sidecars with mutual TLS and without in turns and judges the first.
func (b *bench) secured(ctx context.Context, name, folder, app string, args ...string) error {
	_, port, _ := net.SplitHostPort(app)
	plain, err := b.sidecars(ctx, port, "", args...)
	if err != nil {
		return err
	}
	defer plain.stop()
	secure, err := b.sidecars(ctx, port, folder, args...)
	if err != nil {
		return err
	}
	defer secure.stop()
	order := []*chain{plain, secure}
	for _, c := range order {
		end, err := c.connect(name, secureCallers)
		if err != nil {
			return err
		}
		defer end()
		if err := c.segment(ctx, secureCallers, invokeSegment); err != nil { // opens the connections
			return err
		}
		c.forget()
	}
	for range invokeRounds {
		for _, c := range order {
			if err := c.segment(ctx, secureCallers, invokeSegment); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	var cpu []float64
	for i := range invokeRounds {
		cpu = append(cpu, secure.cost[i]/plain.cost[i])
	}
	b.table.judged(median(cpu) <= secureLimit, row{
		what:  fmt.Sprintf("%s call of 1 KB with mutual TLS, %d at a time, CPU of both", name, secureCallers),
		limit: fmt.Sprintf("≤ %.2f × without", secureLimit), reached: fmt.Sprintf("%.2f ×", median(cpu)),
		raw: fmt.Sprintf("%s; with %.0f, without %.0f µs/call; p50 %.0f, %.0f µs", each("%.2f", cpu), median(secure.cost), median(plain.cost), median(secure.took), median(plain.took)),
	})
	return nil
}

// connect gives a chain of two sidecars callers.
func (c *chain) connect(name string, callers int) (end func(), err error) {
	if name == "HTTP" {
		for range callers {
			c.callers = append(c.callers, httpCaller(c.address, "/v1.0/invoke/shop/method/work"))
		}
		return func() {}, nil
	}
	conn, err := dialGRPC(c.address)
	if err != nil {
		return nil, err
	}
	for range callers {
		c.callers = append(c.callers, grpcCaller(conn))
	}
	return func() { _ = conn.Close() }, nil
}
