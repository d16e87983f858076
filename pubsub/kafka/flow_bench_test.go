package kafka

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/port"
	"github.com/penstock-io/penstock/test/process"
)

// BenchmarkPipeline moves events of 256 B from a topic to another through
// penstock in a process of its own.
func BenchmarkPipeline(b *testing.B) { pipeline(b, fake(b)) }

// BenchmarkToApp delivers events to an app over HTTP that works 1 ms on each, 64
// at a time.
func BenchmarkToApp(b *testing.B) { toApp(b, fake(b)) }

const flowEvents, flowLanes = 100_000, 64

func pipeline(b *testing.B, brokers string) {
	for b.Loop() {
		from, to := filled(b, brokers), conform.Unique(b)
		if err := create(b.Context(), brokers, to, 6); err != nil {
			b.Fatal(err)
		}
		s := sidecar(b, brokers, 0, fmt.Sprintf("kind: Pipeline\nmetadata: {name: move}\nspec:\n  from: {pubsub: bus, topic: %s}\n"+
			"  concurrency: 1024\n  maxInFlight: 8192\n  to:\n    - pubsub: {name: bus, topic: %s}\n", from, to))
		var began time.Time
		first := 0
		until(b, "all events", func() bool {
			n := written(b, brokers, to)
			if first == 0 && n > 0 {
				first, began = n, time.Now()
			}
			return n >= flowEvents
		})
		b.ReportMetric(float64(flowEvents-first)/time.Since(began).Seconds(), "events/s")
		b.ReportMetric(cpuOf(b, s.PID()).Seconds()*1e6/flowEvents, "cpu-us/event")
		if err := s.Stop(time.Minute); err != nil {
			b.Error(err)
		}
	}
}

// cpuOf is the CPU time of a process, its start included; 0 where the system does
// not show it.
func cpuOf(b *testing.B, pid int) (used time.Duration) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	for _, field := range strings.Fields(rest)[11:13] { // user and system, in ticks of 10 ms
		ticks, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		used += time.Duration(ticks) * 10 * time.Millisecond
	}
	return used
}

// filled is a topic with events of a thousand keys.
func filled(b *testing.B, brokers string) (topic string) {
	b.Helper()
	topic = conform.Unique(b)
	if err := create(b.Context(), brokers, topic, 6); err != nil {
		b.Fatal(err)
	}
	d := opened(b, brokers, nil)
	defer shut(b, d)
	pad := strings.Repeat("x", 100)
	for n := 0; n < flowEvents; {
		ms := make([]pubsub.Message, 5000)
		for i := range ms {
			key := strconv.Itoa(n % 1000)
			ms[i] = pubsub.Message{Key: key, Data: fmt.Appendf(nil,
				`{"specversion":"1.0","id":"%d","source":"bench","type":"t","partitionkey":"%s","datacontenttype":"application/json","data":{"n":%d,"pad":"%s"}}`, n, key, n/1000, pad)}
			n++
		}
		if err := d.Publish(b.Context(), topic, ms); err != nil {
			b.Fatal(err)
		}
	}
	return topic
}

// written is how many records a topic has.
func written(b *testing.B, brokers, topic string) (all int) {
	b.Helper()
	ask := map[string][]kafka.OffsetRequest{}
	for p := range 6 {
		ask[topic] = append(ask[topic], kafka.LastOffsetOf(p))
	}
	res, err := admin(brokers).ListOffsets(b.Context(), &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range res.Topics[topic] {
		all += int(max(p.LastOffset, 0))
	}
	return all
}

// sidecar starts penstock with a bus and one more resource.
func sidecar(b *testing.B, brokers string, app int, resource string) *process.Sidecar {
	b.Helper()
	dir := b.TempDir()
	binary, err := process.Build("../..", dir)
	if err != nil {
		b.Fatal(err)
	}
	yaml := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec:\n  type: pubsub.kafka\n  version: v1\n"+
		"  metadata:\n    - {name: brokers, value: %q}\n    - {name: initialOffset, value: oldest}\n---\napiVersion: penstock.dev/v1\n%s", brokers, resource)
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
	s := &process.Sidecar{Path: binary}
	if s.Port, err = port.Free(); err != nil {
		b.Fatal(err)
	}
	s.Args = []string{
		"serve", "--app-id", "bench", "--dapr-http-port", strconv.Itoa(s.Port), "--dapr-grpc-port", "0",
		"--resources-path", dir, "--data-dir", filepath.Join(dir, "data"),
	}
	if app > 0 {
		s.Args = append(s.Args, "--app-port", strconv.Itoa(app))
	}
	if err := s.Start(time.Minute); err != nil {
		b.Fatal(err, s.Log())
	}
	b.Cleanup(func() {
		s.Kill()
		if b.Failed() {
			b.Log(s.Log())
		}
	})
	return s
}

// slowApp works a millisecond on each event and keeps the order of each key.
type slowApp struct {
	n     atomic.Int64
	first atomic.Int64
	wrong atomic.Int64
	mu    sync.Mutex
	next  map[string]int
}

func (a *slowApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusNotFound) // it subscribes to nothing by itself
		return
	}
	key, n := cut(body, `"partitionkey":"`, `"`), cut(body, `"n":`, `,`)
	a.first.CompareAndSwap(0, time.Now().UnixNano())
	a.mu.Lock()
	if at, _ := strconv.Atoi(n); at != a.next[key] {
		a.wrong.Add(1)
	}
	a.next[key]++
	a.mu.Unlock()
	<-time.After(time.Millisecond)
	a.n.Add(1)
}

func cut(body []byte, before, after string) string {
	_, rest, _ := strings.Cut(string(body), before)
	text, _, _ := strings.Cut(rest, after)
	return text
}

func toApp(b *testing.B, brokers string) {
	const events = flowEvents / 4
	app := &slowApp{next: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: app}
	go server.Serve(l)
	defer server.Close()
	for b.Loop() {
		alone := bare(b, "http://"+l.Addr().String()+"/events", events)
		app.n.Store(0)
		app.first.Store(0)
		clear(app.next)
		app.wrong.Store(0)
		topic := filled(b, brokers)
		s := sidecar(b, brokers, l.Addr().(*net.TCPAddr).Port, fmt.Sprintf("kind: Pipeline\nmetadata: {name: app}\nspec:\n"+
			"  from: {pubsub: bus, topic: %s}\n  orderingKey: event.partitionkey\n  concurrency: %d\n  maxInFlight: 1024\n  to:\n    - app: {route: /events}\n", topic, flowLanes))
		until(b, "events", func() bool { return app.n.Load() >= events })
		rate := float64(app.n.Load()) / time.Since(time.Unix(0, app.first.Load())).Seconds()
		b.ReportMetric(rate, "events/s")
		b.ReportMetric(alone, "app-alone/s")
		b.ReportMetric(rate/alone, "ratio")
		if n := app.wrong.Load(); n > 0 {
			b.Errorf("%d events of a key came out of order", n)
		}
		if err := s.Stop(time.Minute); err != nil {
			b.Error(err)
		}
	}
}

// bare is what the app's server takes from as many callers as there are lanes.
func bare(b *testing.B, url string, events int) float64 {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: flowLanes}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	body := `{"specversion":"1.0","id":"1","source":"bench","type":"t","partitionkey":"k","data":{"n":1,"pad":"` + strings.Repeat("x", 100) + `"}}`
	var callers sync.WaitGroup
	began := time.Now()
	for range flowLanes {
		callers.Go(func() {
			for range events / flowLanes {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				res, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	callers.Wait()
	return float64(events/flowLanes*flowLanes) / time.Since(began).Seconds()
}
