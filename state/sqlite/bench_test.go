package sqlite

import (
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/state"
)

// BenchmarkSave compares a client that waits for a commit each time with 64 that
// share commits, on the same file in the same run, and prints the ratio.
func BenchmarkSave(b *testing.B) {
	s := opened(b, filepath.Join(b.TempDir(), "x.db"))
	body := []byte(`{"name":"a value of about one hundred bytes","n":12345,"list":[1,2,3,4,5,6,7,8,9],"flag":true}`)
	save := func(client, i int) {
		if err := s.Apply(b.Context(), []state.Change{{Key: "shop||" + strconv.Itoa(client) + "-" + strconv.Itoa(i%100), Value: body}}); err != nil {
			b.Error(err)
		}
	}
	var alone, together float64
	for b.Loop() {
		const serial, clients, each = 200, 64, 200
		start := time.Now()
		for i := range serial {
			save(0, i)
		}
		alone = serial / time.Since(start).Seconds()
		start = time.Now()
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := range each {
					save(c, i)
				}
			})
		}
		wg.Wait()
		together = clients * each / time.Since(start).Seconds()
	}
	b.ReportMetric(alone, "alone/s")
	b.ReportMetric(together, "together/s")
	b.ReportMetric(together/alone, "ratio")
}

// BenchmarkGet reads 1 and 1000 keys.
func BenchmarkGet(b *testing.B) {
	s := opened(b, filepath.Join(b.TempDir(), "x.db"))
	keys := make([]string, 1000)
	changes := make([]state.Change, len(keys))
	for i := range keys {
		keys[i] = "shop||" + strconv.Itoa(i)
		changes[i] = state.Change{Key: keys[i], Value: []byte(`{"n":1}`)}
	}
	if err := s.Apply(b.Context(), changes); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), keys[:n], state.Read{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
