package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
)

const (
	invokeRounds  = 6
	invokeSegment = time.Second
	invokeLimit   = 1.3
	invokeBody    = 1024
)

// invocations are the measurements of calls from app to app.
func invocations() []measurement {
	return []measurement{
		{"http", (*bench).invokeHTTP},
		{"grpc", (*bench).invokeGRPC},
		{"stream", (*bench).invokeStream},
		{"overload", (*bench).invokeOverload},
		{"mtls", (*bench).invokeSecure},
	}
}

// chain is a row of two processes in front of an app; without any it is the app.
type chain struct {
	name    string
	address string // where calls go
	all     []*process
	callers []caller

	took []float64 // µs, the median of each segment
	cost []float64 // µs of CPU for each call, by segment
	rate []float64 // calls in a second
}

// caller makes one call after the other.
type caller func(ctx context.Context) error

func (c *chain) stop() {
	for _, p := range c.all {
		p.stop()
	}
}

func (c *chain) cpu() (sum time.Duration, err error) {
	for _, p := range c.all {
		d, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// segment calls for a while with the first of the callers.
func (c *chain) segment(ctx context.Context, callers int, d time.Duration) error {
	before, err := c.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	errs, took := make([]error, callers), make([][]float64, callers)
	var wg sync.WaitGroup
	for i, call := range c.callers[:callers] {
		wg.Go(func() {
			for errs[i] == nil && time.Since(began) < d {
				at := time.Now()
				errs[i] = call(ctx)
				took[i] = append(took[i], float64(time.Since(at).Nanoseconds())/1000)
			}
		})
	}
	wg.Wait()
	length := time.Since(began)
	after, err := c.cpu()
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("%s: %w%s", c.name, err, c.said())
	}
	all := slices.Concat(took...)
	c.took = append(c.took, median(all))
	c.cost = append(c.cost, float64((after-before).Nanoseconds())/1000/float64(len(all)))
	c.rate = append(c.rate, float64(len(all))/length.Seconds())
	return nil
}

// said is the end of what the processes logged.
func (c *chain) said() (text string) {
	for _, p := range c.all {
		text += "\n" + p.log.tail()
	}
	return text
}

// duel runs direct calls, penstock and the floor in turns and judges them.
func (b *bench) duel(ctx context.Context, what string, callers int, direct, ours, floor *chain) error {
	order := []*chain{direct, ours, floor}
	for _, c := range order {
		if err := c.segment(ctx, callers, invokeSegment/2); err != nil {
			return err
		}
		c.took, c.cost, c.rate = nil, nil, nil
	}
	for range invokeRounds {
		for _, c := range order {
			if err := c.segment(ctx, callers, invokeSegment); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	var added, cpu []float64
	for i := range invokeRounds {
		added = append(added, (ours.took[i]-direct.took[i])/(floor.took[i]-direct.took[i]))
		cpu = append(cpu, ours.cost[i]/floor.cost[i])
	}
	judge := func(what string, ratios []float64, raw string) {
		b.table.judged(median(ratios) <= invokeLimit, row{
			what: what, limit: fmt.Sprintf("≤ %.1f × two %s", invokeLimit, floor.name),
			reached: fmt.Sprintf("%.2f ×", median(ratios)), raw: each("%.2f", ratios) + "; " + raw,
		})
	}
	judge(what+", added p50", added, fmt.Sprintf("direct %.0f, penstock %.0f, floor %.0f µs", median(direct.took), median(ours.took), median(floor.took)))
	judge(what+", CPU of both", cpu, fmt.Sprintf("penstock %.0f, floor %.0f µs/call; %.0f, %.0f calls/s", median(ours.cost), median(floor.cost), median(ours.rate), median(floor.rate)))
	return nil
}

// sidecars starts two penstocks: one of a caller, the other one of the app called
// shop at a port. Without a folder of identities they speak plain text.
func (b *bench) sidecars(ctx context.Context, port, identities string, args ...string) (*chain, error) {
	dir, err := os.MkdirTemp(b.dir, "invoke")
	if err != nil {
		return nil, err
	}
	internal, err := freeAddress()
	if err != nil {
		return nil, err
	}
	api, err := freeAddress() // of gRPC
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yaml")
	for path, text := range map[string]string{
		config: "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: bench}\nspec: {nameResolution: {component: file, configuration: {path: " +
			filepath.Join(dir, "apps.yaml") + "}}}\n",
		filepath.Join(dir, "apps.yaml"): "shop: " + internal + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	_, internalPort, _ := net.SplitHostPort(internal)
	_, apiPort, _ := net.SplitHostPort(api)
	c := &chain{name: "penstock"}
	// The last flag of a name counts.
	shop := append([]string{"--app-id", "shop", "--app-port", port, "--dapr-internal-grpc-port", internalPort, "--config", config}, args...)
	for i, flags := range [][]string{shop, {"--config", config, "--dapr-grpc-port", apiPort}} {
		if identities != "" {
			flags = append(flags, "--identity-dir", filepath.Join(identities, []string{"shop", "bench"}[i]))
		}
		own := filepath.Join(dir, fmt.Sprint(i))
		err := os.Mkdir(own, 0o700)
		var p *process
		if err == nil {
			p, err = b.serve(own, flags...)
		}
		if err != nil {
			c.stop()
			return nil, err
		}
		c.all = append(c.all, p)
		if _, err := p.ready(ctx); err != nil {
			c.stop()
			return nil, err
		}
	}
	c.address = c.all[1].address
	if slices.Contains(args, "grpc") {
		c.address = api
	}
	return c, nil
}

// relays starts two bare proxies in a row in front of an address.
func (b *bench) relays(ctx context.Context, kind, name, to string) (*chain, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &chain{name: name, address: to}
	for range 2 {
		address, err := freeAddress()
		var p *process
		if err == nil {
			p, err = run(b.dir, address, self, "-relay", kind, "-floor", address, "-to", c.address)
		}
		if err == nil {
			c.all = append(c.all, p)
			err = p.listening(ctx)
		}
		if err != nil {
			c.stop()
			return nil, err
		}
		c.address = address
	}
	return c, nil
}

// listening waits until the process takes connections.
func (p *process) listening(ctx context.Context) error {
	for range 1000 {
		conn, err := net.DialTimeout("tcp", p.address, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("nobody listens at %s; it said:\n%s", p.address, p.log.tail())
}

// httpCaller is a connection that posts the same body again and again. It is opened
// by the first call: servers hang up on who says nothing.
func httpCaller(address, path string) caller {
	var conn net.Conn
	var in *bufio.Reader
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", path, address, invokeBody)
	request := append([]byte(head), bytes.Repeat([]byte("x"), invokeBody)...)
	return func(context.Context) (err error) {
		if conn == nil {
			if conn, err = net.Dial("tcp", address); err != nil {
				return err
			}
			in = bufio.NewReader(conn)
		}
		if _, err := conn.Write(request); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || n != invokeBody) {
			err = fmt.Errorf("%s with %d bytes", resp.Status, n)
		}
		return err
	}
}

// webApp listens on a port of its own.
func webApp(h http.HandlerFunc) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/", http.NotFound)
	mux.HandleFunc("/", h)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	return l.Addr().String(), func() { _ = server.Close() }, nil
}

// invokeHTTP measures calls of 1 KB that are answered with as much.
func (b *bench) invokeHTTP(ctx context.Context) error {
	reply := bytes.Repeat([]byte("y"), invokeBody)
	app, stop, err := webApp(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(reply)
	})
	if err != nil {
		return err
	}
	defer stop()
	direct, ours, floor, end, err := b.arms(ctx, "http", "net/http proxies", app)
	if err != nil {
		return err
	}
	defer end()
	const most = 64
	for _, c := range []*chain{direct, ours, floor} {
		path := "/work"
		if c == ours {
			path = "/v1.0/invoke/shop/method/work"
		}
		for range most {
			c.callers = append(c.callers, httpCaller(c.address, path))
		}
	}
	for _, n := range []int{1, 16, most} {
		direct.forget()
		ours.forget()
		floor.forget()
		if err := b.duel(ctx, fmt.Sprintf("HTTP call of 1 KB, %d at a time", n), n, direct, ours, floor); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) forget() { c.took, c.cost, c.rate = nil, nil, nil }

// arms are the app itself, and two sidecars and two bare proxies in front of it.
func (b *bench) arms(ctx context.Context, kind, name, app string, args ...string) (direct, ours, floor *chain, stop func(), err error) {
	_, port, _ := net.SplitHostPort(app)
	direct = &chain{name: "direct", address: app}
	if ours, err = b.sidecars(ctx, port, "", args...); err != nil {
		return nil, nil, nil, nil, err
	}
	if floor, err = b.relays(ctx, kind, name, app); err != nil {
		ours.stop()
		return nil, nil, nil, nil, err
	}
	return direct, ours, floor, func() { ours.stop(); floor.stop() }, nil
}

// invokeGRPC measures unary calls of 1 KB of a service of the app's own.
func (b *bench) invokeGRPC(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() { _ = serveRaw(l, echo) }()
	direct, ours, floor, end, err := b.arms(ctx, "grpc", "gRPC forwarders", l.Addr().String(), "--app-protocol", "grpc")
	if err != nil {
		return err
	}
	defer end()
	const most = 16
	for _, c := range []*chain{direct, ours, floor} {
		conn, err := dialGRPC(c.address)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range most {
			c.callers = append(c.callers, grpcCaller(conn))
		}
	}
	for _, n := range []int{1, most} {
		direct.forget()
		ours.forget()
		floor.forget()
		if err := b.duel(ctx, fmt.Sprintf("gRPC call of 1 KB, %d at a time", n), n, direct, ours, floor); err != nil {
			return err
		}
	}
	return nil
}

func grpcCaller(conn *grpc.ClientConn) caller {
	body := mem.BufferSlice{mem.SliceBuffer(bytes.Repeat([]byte("x"), invokeBody))}
	return func(ctx context.Context) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", "shop")
		var reply mem.BufferSlice
		if err := conn.Invoke(ctx, echoMethod, &body, &reply); err != nil {
			return err
		}
		defer reply.Free()
		if reply.Len() != invokeBody {
			return fmt.Errorf("answered %d bytes", reply.Len())
		}
		return nil
	}
}
