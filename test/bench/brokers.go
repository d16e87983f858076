package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

const (
	brokerRounds = 3
	brokerBench  = "BenchmarkAgainstBareLoop"
	rateLimit    = 0.7 // of the rate of the bare client library
	costLimit    = 1.5 // of its CPU time
)

// brokers are the components that are compared, on real servers, with the client
// libraries that they are made of.
func brokers() []measurement {
	var all []measurement
	for _, name := range []string{"redis", "rabbitmq", "jetstream", "kafka"} {
		all = append(all, measurement{name, func(b *bench, ctx context.Context) error { return b.broker(ctx, name) }})
	}
	return all
}

// broker runs the benchmark of one component, which measures both ways in one
// process, and judges the medians of its ratios.
func (b *bench) broker(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "services,grpcnotrace", "-run", "^$", "-bench", "^"+brokerBench+"$",
		"-benchtime", "1x", "-count", strconv.Itoa(brokerRounds), "-timeout", "10m", "./pubsub/"+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	b.judgeBroker(name, parseBench(out))
	return nil
}

// parseBench returns the figures of a benchmark's lines, by unit.
func parseBench(out []byte) map[string][]float64 {
	figures := map[string][]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || !strings.HasPrefix(words[0], brokerBench) {
			continue
		}
		for pair := words[2:]; len(pair) > 1; pair = pair[2:] {
			if v, err := strconv.ParseFloat(pair[0], 64); err == nil {
				figures[pair[1]] = append(figures[pair[1]], v)
			}
		}
	}
	return figures
}

// judgeBroker adds what was compared: publish, batch and consume with limits, and
// what else the benchmark tells for information.
func (b *bench) judgeBroker(name string, figures map[string][]float64) {
	found := false
	for _, unit := range slices.Sorted(maps.Keys(figures)) {
		way, isRatio := strings.CutSuffix(unit, "-ratio")
		if !isRatio || strings.HasSuffix(way, "-cpu") {
			continue
		}
		found = true
		rates := make([]float64, len(figures[unit]))
		for i, v := range figures[unit] {
			rates[i] = 100 * v
		}
		rate := row{
			what: fmt.Sprintf("%s, %s 256 B: rate", name, way), limit: "≥ 70 % of the bare client",
			reached: fmt.Sprintf("%.0f %%", median(rates)),
			raw:     fmt.Sprintf("%s %%; %.0f/s, bare %.0f/s", each("%.0f", rates), median(figures[way+"/s"]), median(figures["bare-"+way+"/s"])),
		}
		costs := figures[way+"-cpu-ratio"]
		cost := row{
			what: "… CPU time for each event", limit: "≤ 1.5 × the bare client",
			reached: fmt.Sprintf("%.2f ×", median(costs)), raw: each("%.2f", costs),
		}
		switch way {
		default:
			rate.limit, cost.limit = "", ""
			b.table.told(rate)
			b.table.told(cost)
		case "publish", "batch", "consume":
			b.table.judged(median(rates) >= 100*rateLimit, rate)
			b.table.judged(len(costs) > 0 && median(costs) <= costLimit, cost)
		}
	}
	if !found {
		b.table.judged(false, row{what: name, limit: "≥ 70 % of the bare client", reached: "not measured", raw: "there is no " + brokerBench})
	}
}
