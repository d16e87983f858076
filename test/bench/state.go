package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	stateRounds = 6
	stateTime   = 250 * time.Millisecond
	stateLimit  = 1.4
)

// stateStores are those compared, with what their component needs.
func stateStores() []measurement {
	var all []measurement
	for _, s := range []storeUnderTest{
		{name: "in-memory"},
		{name: "sqlite", option: "connectionString", value: "state.db"},
		{name: "redis", option: "redisHost", server: "PENSTOCK_TEST_REDIS"},
		{name: "postgresql", version: "v2", option: "connectionString", server: "PENSTOCK_TEST_POSTGRES"},
	} {
		all = append(all, measurement{s.name, func(b *bench, ctx context.Context) error { return b.state(ctx, s) }})
	}
	return all
}

// storeUnderTest is a component and its one option.
type storeUnderTest struct {
	name, version string
	option, value string
	server        string // variable that has the value
}

func (s storeUnderTest) document() string {
	version := s.version
	if version == "" {
		version = "v1"
	}
	text := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: kept}\nspec:\n  type: state.%s\n  version: %s\n", s.name, version)
	if s.option != "" {
		text += fmt.Sprintf("  metadata: [{name: %s, value: %q}]\n", s.option, s.value)
	}
	return text
}

// stateArm is one of the two programs compared.
type stateArm struct {
	process *process
	rpc     *grpc.ClientConn
}

// call is one request of one client.
type call func(ctx context.Context) error

// state compares what a get and a set cost in penstock and in a bare program in
// front of the same driver, over both protocols.
func (b *bench) state(ctx context.Context, s storeUnderTest) error {
	if s.server != "" {
		if s.value = os.Getenv(s.server); s.value == "" {
			b.table.told(row{what: s.name, reached: "not measured", raw: "there is no " + s.server + "; see make bench-state"})
			return nil
		}
	}
	penstock, err := b.statePenstock(ctx, s)
	if err != nil {
		return err
	}
	defer penstock.stop()
	floor, err := b.stateFloor(ctx, s)
	if err != nil {
		return err
	}
	defer floor.stop()
	for _, protocol := range []string{"HTTP", "gRPC"} {
		for _, verb := range []string{"set", "get"} { // set first: what is got must be there
			for _, clients := range []int{1, 16, 64} {
				if err := b.stateCase(ctx, s.name, stateLoad{protocol, verb, clients}, []*stateArm{penstock, floor}); err != nil {
					return fmt.Errorf("%s over %s: %w\n%s\n%s", verb, protocol, err, penstock.process.log.tail(), floor.process.log.tail())
				}
			}
		}
	}
	return nil
}

// stateLoad is what clients do.
type stateLoad struct {
	protocol, verb string
	clients        int
}

// stateCase measures one load on both arms and judges the CPU time.
func (b *bench) stateCase(ctx context.Context, store string, load stateLoad, arms []*stateArm) error {
	calls := make([][]call, len(arms))
	cost, rate := make([][]float64, len(arms)), make([][]float64, len(arms))
	for i, a := range arms {
		var closing func()
		var err error
		if calls[i], closing, err = a.calls(load); err != nil {
			return err
		}
		defer closing()
		if _, _, err := a.segment(ctx, calls[i]); err != nil { // warm up
			return err
		}
	}
	for n := range stateRounds {
		for k := range arms { // A B, B A, ...
			i := (k + n) % len(arms)
			us, perSecond, err := arms[i].segment(ctx, calls[i])
			if err != nil {
				return err
			}
			cost[i], rate[i] = append(cost[i], us), append(rate[i], perSecond)
		}
	}
	ratios := make([]float64, stateRounds)
	for i := range ratios {
		ratios[i] = cost[0][i] / cost[1][i]
	}
	b.table.judged(median(ratios) <= stateLimit, row{
		what:  fmt.Sprintf("CPU of state.%s %s over %s, %d clients", store, load.verb, load.protocol, load.clients),
		limit: "≤ 1.4 × bare server and driver", reached: fmt.Sprintf("%.2f ×", median(ratios)),
		raw: fmt.Sprintf("%.1f and %.1f µs; %.0f and %.0f/s; %s", median(cost[0]), median(cost[1]), median(rate[0]), median(rate[1]), each("%.2f", ratios)),
	})
	return nil
}

// segment has all clients call for a while, and returns the CPU time of the
// process for each call, in µs, and the calls in a second.
func (a *stateArm) segment(ctx context.Context, calls []call) (us, perSecond float64, err error) {
	before, err := a.process.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	var n atomic.Int64
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, do := range calls {
		wg.Go(func() {
			for time.Since(began) < stateTime && errs[i] == nil {
				if errs[i] = do(ctx); errs[i] == nil {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := a.process.cpu()
	if err = errors.Join(append(errs, err)...); err != nil {
		return 0, 0, err
	}
	done := float64(n.Load())
	return float64((after - before).Nanoseconds()) / 1000 / done, done / took.Seconds(), nil
}

// calls makes the clients of a load. Each has a key of its own.
func (a *stateArm) calls(load stateLoad) (calls []call, closing func(), err error) {
	var conns []net.Conn
	closing = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for i := range load.clients {
		key := fmt.Sprintf("key-%d", i)
		if load.protocol == "gRPC" {
			calls = append(calls, a.rpcCall(load.verb, key, payload(i)))
			continue
		}
		conn, err := net.Dial("tcp", a.process.address)
		if err != nil {
			closing()
			return nil, nil, err
		}
		conns = append(conns, conn)
		calls = append(calls, httpCall(conn, load.verb, key, payload(i)))
	}
	return calls, closing, nil
}

// httpCall gets or sets over a connection.
func httpCall(conn net.Conn, verb, key string, value []byte) call {
	request, want := fmt.Sprintf("GET /v1.0/state/kept/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", key), http.StatusOK
	if verb == "set" {
		body := fmt.Sprintf(`[{"key":%q,"value":%s}]`, key, value)
		request = fmt.Sprintf("POST /v1.0/state/kept HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		want = http.StatusNoContent
	}
	in, out := bufio.NewReader(conn), []byte(request)
	return func(context.Context) error {
		if _, err := conn.Write(out); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != want || verb == "get" && len(text) != len(value)) {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		return err
	}
}

// rpcCall gets or sets over the arm's gRPC connection, which all clients share.
func (a *stateArm) rpcCall(verb, key string, value []byte) call {
	c := rtv1.NewDaprClient(a.rpc)
	if verb == "set" {
		return func(ctx context.Context) error {
			_, err := c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: "kept", States: []*commonv1.StateItem{{Key: key, Value: value}}})
			return err
		}
	}
	return func(ctx context.Context) error {
		resp, err := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: "kept", Key: key})
		if err == nil && len(resp.GetData()) != len(value) {
			err = fmt.Errorf("got %d bytes of %s", len(resp.GetData()), key)
		}
		return err
	}
}

func (b *bench) statePenstock(ctx context.Context, s storeUnderTest) (*stateArm, error) {
	dir, err := os.MkdirTemp(b.dir, "state")
	if err != nil {
		return nil, err
	}
	if err := writeResources(dir, s.document()); err != nil {
		return nil, err
	}
	rpc, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(rpc)
	p, err := b.serve(dir, "--resources-path", dir+"/resources", "--dapr-grpc-port", port)
	if err != nil {
		return nil, err
	}
	return newStateArm(ctx, p, rpc)
}

func (b *bench) stateFloor(ctx context.Context, s storeUnderTest) (*stateArm, error) {
	dir, err := os.MkdirTemp(b.dir, "floor")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	rpc, err := freeAddress()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := run(dir, address, self, "-floor", address, "-floor-grpc", rpc, "-floor-store", s.name)
	if err != nil {
		return nil, err
	}
	return newStateArm(ctx, p, rpc)
}

// newStateArm waits for the process and connects to it; it stops the process
// when that fails.
func newStateArm(ctx context.Context, p *process, rpc string) (*stateArm, error) {
	_, err := p.ready(ctx)
	if err == nil {
		var conn *grpc.ClientConn
		if conn, err = grpc.NewClient(rpc, grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
			return &stateArm{process: p, rpc: conn}, nil
		}
	}
	p.stop()
	return nil, err
}

func (a *stateArm) stop() {
	_ = a.rpc.Close()
	a.process.stop()
}
