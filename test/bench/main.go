// Command bench measures the limits that the project sets itself, against the
// real binary, and prints one table.
//
// Run it with `make bench`, or `go run ./test/bench -penstock bin/penstock`;
// `-brokers` compares the components of brokers with bare client loops instead,
// on the servers that `make bench-brokers` starts, and `-state` the state API with
// a bare server in front of the same drivers; `-invoke` compares calls from app
// to app with bare proxies; `-only deliver` measures one
// thing, `-report-only` never fails, `-dir` says
// where the files of the durable measurements go. It takes about two minutes
// on two cores and wants the machine for itself.
//
// It promises that what it compares is measured in one run and interleaved
// (A B B A), that figures are medians, and that only the process in question
// is charged: generator and app are others. It exits with 1 when a limit is
// missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"
)

// bench is one run.
type bench struct {
	penstock string // path of the binary
	dir      string // for files, removed afterwards
	table    table
}

// measurement is one thing that -only can name.
type measurement struct {
	name string
	run  func(*bench, context.Context) error
}

func measurements() []measurement {
	return []measurement{
		{"size", (*bench).size},
		{"start", (*bench).start},
		{"deliver", (*bench).deliver},
		{"traced", (*bench).traced},
		{"watched", (*bench).watched},
		{"durable", (*bench).durable},
		{"lanes", (*bench).lanes},
		{"subscriptions", (*bench).subscriptions},
	}
}

func main() {
	penstock := flag.String("penstock", "bin/penstock", "`path` of the binary to measure, stripped and static")
	only := flag.String("only", "", "measure only this: "+names(measurements())+"; with -brokers: "+names(brokers())+"; with -state: "+names(stateStores())+"; with -invoke: "+names(invocations()))
	calls := flag.Bool("invoke", false, "compare calls from app to app through two sidecars with two bare proxies in a row")
	relay := flag.String("relay", "", "be a bare `proxy` of -invoke, http, grpc or tcp, that listens on the address of -floor")
	servers := flag.Bool("brokers", false, "compare the components of brokers with bare client loops, on the servers of the environment")
	state := flag.Bool("state", false, "compare gets and sets of state with a bare server in front of the same driver")
	reportOnly := flag.Bool("report-only", false, "exit with 0 although a limit is missed")
	dir := flag.String("dir", "", "`folder` for files; that of the system when empty")
	floor := flag.String("floor", "", "be the floor of deliver, or of state, and listen on this `address`")
	floorStore := flag.String("floor-store", "", "with -floor: be the floor of this state `store`")
	floorGRPC := flag.String("floor-grpc", "", "with -floor-store: the `address` for gRPC")
	to := flag.String("to", "", "with -floor: the `url` to deliver to; with -relay: the address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *relay != "" {
		exit(runRelay(ctx, *relay, *floor, *to))
	}
	if *floorStore != "" {
		exit(runStateFloor(ctx, *floorStore, *floor, *floorGRPC, "."))
	}
	if *floor != "" {
		exit(runFloor(ctx, *floor, *to))
	}
	plan := measurements()
	if *servers {
		plan = brokers()
	}
	if *calls {
		plan = invocations()
	}
	if *state {
		plan = stateStores()
	}
	missed, err := measure(ctx, plan, *penstock, *dir, *only)
	if err == nil && missed && !*reportOnly {
		err = errors.New("a limit is missed")
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func names(plan []measurement) string {
	var all []string
	for _, m := range plan {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// measure runs what is asked for, prints the table and tells whether a limit is
// missed.
func measure(ctx context.Context, plan []measurement, penstock, parent, only string) (missed bool, err error) {
	dir, err := os.MkdirTemp(parent, "penstock-bench")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	b := &bench{penstock: penstock, dir: dir}
	began, found := time.Now(), false
	for _, m := range plan {
		if only != "" && only != m.name {
			continue
		}
		found = true
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", m.name)
		if err := m.run(b, ctx); err != nil {
			return false, fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	if !found {
		return false, fmt.Errorf("nothing is called %q; there is %s", only, names(plan))
	}
	b.table.print(os.Stdout)
	fmt.Printf("\n%d cores, %s, %s/%s, %s for all of it\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		time.Since(began).Round(time.Second))
	return b.table.missed(), nil
}
