package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const benchOutput = `goos: linux
BenchmarkAgainstBareLoop
BenchmarkAgainstBareLoop-2   1  2000 ns/op  100 bare-publish/s  80 publish/s  0.8 publish-ratio  1.2 publish-cpu-ratio  0.5 batch-publish-ratio
BenchmarkAgainstBareLoop-2   1  2000 ns/op  100 bare-publish/s  60 publish/s  0.6 publish-ratio  1.4 publish-cpu-ratio  0.5 batch-publish-ratio
BenchmarkAgainstBareLoop-2   1  2000 ns/op  100 bare-publish/s  70 publish/s  0.7 publish-ratio  1.6 publish-cpu-ratio  0.5 batch-publish-ratio
BenchmarkAgainstBareLoop-2   1  2000 ns/op  0.5 consume-ratio   1.0 consume-cpu-ratio
BenchmarkOther-2             1  9.9 publish-ratio
PASS
`

func TestBrokersAreJudgedByMedians(t *testing.T) {
	t.Parallel()
	b := &bench{}
	b.judgeBroker("x", parseBench([]byte(benchOutput)))
	var got []string
	for _, r := range b.table.rows {
		got = append(got, strings.Join([]string{r.what, r.reached, r.verdict}, "; "))
	}
	want := []string{
		"x, batch-publish 256 B: rate; 50 %; ",
		"… CPU time for each event; 0.00 ×; ",
		"x, consume 256 B: rate; 50 %; MISSED",
		"… CPU time for each event; 1.00 ×; reached",
		"x, publish 256 B: rate; 70 %; reached",
		"… CPU time for each event; 1.40 ×; reached",
	}
	if diff := cmp.Diff(want, got); diff != "" || !b.table.missed() {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBrokerWithoutABenchmarkIsMissed(t *testing.T) {
	t.Parallel()
	b := &bench{}
	b.judgeBroker("x", parseBench([]byte("PASS\n")))
	if !b.table.missed() {
		t.Errorf("%+v", b.table)
	}
}
