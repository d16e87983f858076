//go:build services

package redis

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

const childAddr, childTopic = "PENSTOCK_TEST_CHILD_ADDR", "PENSTOCK_TEST_CHILD_TOPIC"

// TestMain is also the program that TestKilled kills.
func TestMain(m *testing.M) {
	addr, topic := os.Getenv(childAddr), os.Getenv(childTopic)
	if addr == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	env := component.Env{Name: "bus", AppID: "app", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(ctx, env, []config.Item{{Name: "redisHost", Value: addr}})
	if err == nil {
		err = d.(pubsub.Driver).Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
			fmt.Println(string(x.Body)) // and never settles it
			return nil
		})
	}
	fmt.Println(err)
	os.Exit(1)
}

// TestKilled kills a process that holds entries: another has them soon.
func TestKilled(t *testing.T) {
	addr, topic := server(t), conform.Unique(t)
	d := openAt(t, addr)
	for _, body := range []string{"1", "2", "3"} {
		if err := d.Publish(t.Context(), topic, []pubsub.Message{{Data: []byte(body)}}); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childAddr+"="+addr, childTopic+"="+topic)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"1", "2", "3"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the child says %q, want %q", lines.Text(), want)
		}
	}
	f := start(t, d, topic)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	began := time.Now()
	f.require("1", "2", "3")
	f.await(t)
	t.Logf("taken over after %s", time.Since(began))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("taken over after %s", took)
	}
}

// flow consumes a topic, and publishes to it while asked to.
type flow struct {
	d     pubsub.Driver
	topic string

	mu   sync.Mutex // guards what follows; held while publishing
	want map[string]bool
	got  map[string]int
}

// start consumes until the test ends, as the Bus does.
func start(t *testing.T, d pubsub.Driver, topic string) *flow {
	t.Helper()
	f := &flow{d: d, topic: topic, want: map[string]bool{}, got: map[string]int{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var reading sync.WaitGroup
	t.Cleanup(func() { cancel(); reading.Wait() })
	reading.Go(func() {
		for ctx.Err() == nil {
			err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
				x.Settle(cloudevents.Acked())
				f.mu.Lock()
				f.got[string(x.Body)]++
				f.mu.Unlock()
				return nil
			})
			if err != nil {
				t.Logf("subscribe: %v", err)
			}
			pause(100 * time.Millisecond)
		}
	})
	return f
}

func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

func (f *flow) require(bodies ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range bodies {
		f.want[b] = true
	}
}

// publishing publishes about every two milliseconds until it is told to stop.
// What was published without an error must come.
func (f *flow) publishing(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			body := strconv.Itoa(i)
			one, done := context.WithTimeout(t.Context(), 5*time.Second)
			f.mu.Lock()
			if f.d.Publish(one, f.topic, []pubsub.Message{{Data: []byte(body)}}) == nil {
				f.want[body] = true
			}
			f.mu.Unlock()
			done()
			pause(2 * time.Millisecond)
		}
	})
	return func() { cancel(); work.Wait() }
}

// missing returns how many have not come, and how many must.
func (f *flow) missing() (n, of int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for b := range f.want {
		if f.got[b] == 0 {
			n++
		}
	}
	return n, len(f.want)
}

// await waits until all has come.
func (f *flow) await(t *testing.T) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for n, of := f.missing(); n > 0; n, of = f.missing() {
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages did not come", n, of)
		}
		pause(20 * time.Millisecond)
	}
}

// progress waits until n more messages have come than at the call.
func (f *flow) progress(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.got)
	}
	began, end := count(), time.Now().Add(time.Minute)
	for count() < began+n {
		if time.Now().After(end) {
			t.Fatalf("%d messages came in a minute, want %d", count()-began, n)
		}
		pause(5 * time.Millisecond)
	}
}

func own(t *testing.T) (*services.Server, rueidis.Client) {
	t.Helper()
	s := services.Start(t, "redis")
	return s, dial(t, s.Addr)
}

func dial(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestGroupDestroyed takes the group away, several times, while messages come and
// go: none is lost.
func TestGroupDestroyed(t *testing.T) {
	s, c := own(t)
	f := start(t, openAt(t, s.Addr), "t")
	stop := f.publishing(t)
	for range 5 {
		f.progress(t, 100)
		if err := c.Do(t.Context(), c.B().Arbitrary("XGROUP", "DESTROY", "t", "g").Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	f.progress(t, 100)
	stop()
	f.await(t)
}

// TestStreamDeleted takes the stream away: nothing that was published after it
// is lost.
func TestStreamDeleted(t *testing.T) {
	s, c := own(t)
	f := start(t, openAt(t, s.Addr), "t")
	stop := f.publishing(t)
	for range 5 {
		f.progress(t, 100)
		f.mu.Lock() // nothing is being published
		err := c.Do(t.Context(), c.B().Arbitrary("DEL", "t").Build()).Error()
		clear(f.want)
		f.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	f.progress(t, 100)
	stop()
	f.await(t)
}

// TestServerRestarted stops the server in order, then kills it: what it confirmed
// comes when it is there again.
func TestServerRestarted(t *testing.T) {
	s, _ := own(t)
	f := start(t, openAt(t, s.Addr), "t")
	stop := f.publishing(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		f.progress(t, 100)
		if err := s.Stop(sig); err != nil {
			t.Fatal(err)
		}
		pause(300 * time.Millisecond)
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	f.progress(t, 100)
	stop()
	f.await(t)
}
