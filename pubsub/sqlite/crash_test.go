package sqlite

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
)

// The test binary is its own child: with these set it is a process to be
// killed.
const (
	childRole = "PENSTOCK_TEST_ROLE"
	childFile = "PENSTOCK_TEST_FILE"
	childTurn = "PENSTOCK_TEST_TURN"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "work":
		childMust(work(context.Background(), os.Getenv(childFile), os.Getenv(childTurn)))
	case "hold":
		childMust(hold(context.Background(), os.Getenv(childFile)))
	}
	// Each check of a model writes to a real disk.
	childMust(flag.Set("rapid.checks", "50"))
	goleak.VerifyTestMain(m)
}

func childMust(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childOpen(ctx context.Context, file string) (*driver, error) {
	d, err := Component.Open(ctx, component.Env{}, []config.Item{{Name: "connectionString", Value: file}})
	if err != nil {
		return nil, err
	}
	return d.(*driver), nil
}

const publishers = 8

// work publishes with eight keys and reads with one subscriber. A line "sent"
// is written after a publish returned, a line "got" before a delivery is
// acknowledged: what the parent has read is what was promised.
func work(ctx context.Context, file, turn string) error {
	d, err := childOpen(ctx, file)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%d/%s/%06d", p, turn, n)
				if err := d.Publish(ctx, "t", []pubsub.Message{{Key: id[:1], Data: []byte(id)}}); err != nil {
					childMust(err)
				}
				fmt.Fprintf(os.Stdout, "sent %s\n", id)
			}
		})
	}
	return d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
		fmt.Fprintf(os.Stdout, "got %s\n", x.Body)
		x.Settle(cloudevents.Acked())
		return nil
	})
}

// hold takes a delivery, and says so when its attempt is on the disk.
func hold(ctx context.Context, file string) error {
	d, err := childOpen(ctx, file)
	if err != nil {
		return err
	}
	return d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *cloudevents.Delivery) error {
		go func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				n := 0
				if childMust(d.b.db.Read().QueryRow("SELECT max(attempt) FROM pubsub_pending").Scan(&n)); n > 0 {
					fmt.Fprintln(os.Stdout, "holding")
					return
				}
			}
		}()
		return nil
	})
}

// child starts the test binary in a role.
func child(t *testing.T, role, file string, turn int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childRole+"="+role, childFile+"="+file, fmt.Sprintf("%s=%03d", childTurn, turn))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// ledger is what the children said, in order.
type ledger struct {
	sent  map[string][]string // by key
	got   []string
	times map[string]int
}

func (l *ledger) read(lines *bufio.Scanner, enough func(n int)) {
	n := 0
	for lines.Scan() {
		word, id, ok := strings.Cut(lines.Text(), " ")
		if !ok || len(id) != len("0/000/000000") { // cut short by the kill
			continue
		}
		n++
		enough(n)
		if word == "sent" {
			l.sent[id[:1]] = append(l.sent[id[:1]], id)
			continue
		}
		l.note(id)
	}
}

func (l *ledger) note(id string) {
	l.got = append(l.got, id)
	l.times[id]++
}

func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bus.db")
	l := ledger{sent: map[string][]string{}, times: map[string]int{}}
	const kills = 20
	for turn := range kills {
		cmd, lines := child(t, "work", file, turn)
		after := 1 + rand.IntN(1500)
		l.read(lines, func(n int) {
			if n == after {
				_ = cmd.Process.Kill() // it may be gone
			}
		})
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("turn %d: the child ended by itself: %v", turn, err)
		}
	}
	d := openAt(t, file)
	sent := 0
	missing := map[string]bool{}
	for _, ids := range l.sent {
		for _, id := range ids {
			sent++
			if l.times[id] == 0 {
				missing[id] = true
			}
		}
	}
	left := len(missing)
	drain(t, d, func(id string) bool {
		l.note(id)
		delete(missing, id)
		return len(missing) == 0
	}, left == 0)
	if len(missing) > 0 {
		t.Errorf("%d of %d published messages are lost", len(missing), sent)
	}
	l.checkOrder(t)
	t.Logf("%d kills: %d published, %d delivered, %d more than once, %d left for the end", kills, sent, len(l.times), len(l.got)-len(l.times), left)
	if sent < kills || len(l.got) < kills {
		t.Error("the children did next to nothing")
	}
}

// checkOrder wants every delivery to come after all earlier ones of its key.
func (l *ledger) checkOrder(t *testing.T) {
	t.Helper()
	next := map[string]int{}
	seen := map[string]bool{}
	for _, id := range l.got {
		seen[id] = true
		key := id[:1]
		ids := l.sent[key]
		for next[key] < len(ids) && ids[next[key]] < id {
			if !seen[ids[next[key]]] {
				t.Fatalf("%s was delivered before %s", id, ids[next[key]])
			}
			next[key]++
		}
	}
}

// drain acknowledges deliveries until done says so.
func drain(t *testing.T, d *driver, done func(body string) bool, ended bool) {
	t.Helper()
	if ended {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
		x.Settle(cloudevents.Acked())
		if done(string(x.Body)) {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestKilledDeliveryIsCounted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bus.db")
	for turn := range 3 {
		cmd, lines := child(t, "hold", file, turn)
		if turn == 0 {
			d := openAt(t, file)
			if err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}}); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !lines.Scan() || lines.Text() != "holding" {
			t.Fatalf("turn %d: child said %q", turn, lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, strings.NewReader(lines.Text()))
		_ = cmd.Wait() // killed
	}
	d := openAt(t, file)
	start := time.Now()
	m := watch(t, d)
	x := m.next(t)
	if x.Attempt < 2 {
		t.Errorf("attempt %d after deliveries that were killed", x.Attempt)
	}
	if took := time.Since(start); took > d.opts.RedeliverInterval/2 {
		t.Errorf("the group of a dead process was taken over after %s", took)
	}
	x.Settle(cloudevents.Acked())
}
