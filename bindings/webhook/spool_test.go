package webhook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func openStored(t *testing.T, env component.Env, pairs ...string) *receiver {
	t.Helper()
	return openWebhook(t, env, append([]string{"answer", "accepted"}, pairs...)...)
}

// again returns the surroundings of the next process on the same data.
func again(env component.Env) component.Env {
	env.Shared = &component.Shared{}
	return env
}

func (r *receiver) waiting() int {
	r.hook.spool.mu.Lock()
	defer r.hook.spool.mu.Unlock()
	return r.hook.spool.rows
}

func TestStoredAndDelivered(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env, "signature", "github", "secret", "s")
	send(t, r, "POST", "/in", "x").want(t, 503, "") // nobody reads
	rt := run(t, r, nil)
	body := `{"repository": {"full_name":"o/r"}}`
	header := signedHeaders(r.hook.scheme, "", body, "Content-Type", "application/json", "X-GitHub-Event", "push", "X-GitHub-Delivery", "d1",
		"User-Agent", "GitHub-Hookshot/1")
	send(t, r, "POST", "/in", body, header...).want(t, 202, `"outcome":"accepted"`)
	first := rt.next(t)
	send(t, r, "POST", "/in", body, header...).want(t, 202, `"outcome":"duplicate"`)
	first.Settle(cloudevents.Acked())
	waitFor(t, "the row to go", func() bool { return r.waiting() == 0 })
	send(t, r, "POST", "/in", body, header...).want(t, 202, `"outcome":"duplicate"`)
	send(t, r, "POST", "/in", body).want(t, 401, "unauthorized\n")
	rt.none(t)

	want := map[string]string{
		"id": "d1", "type": "com.github.push", "source": "/webhooks/in", "subject": "o/r", "datacontenttype": "application/json",
	}
	if diff := cmp.Diff(want, attrs(first)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	meta := map[string]string{"x-github-event": "push", "x-github-delivery": "d1", "user-agent": "GitHub-Hookshot/1"}
	if diff := cmp.Diff(meta, first.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if string(first.Body) != body || string(first.Event.Data()) != body || first.Attempt != 1 || first.Origin != "in" {
		t.Errorf("delivery %+v", first)
	}

	// The id is known to the next process, too.
	rt.stop()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = openStored(t, again(env), "signature", "github", "secret", "s")
	rt = run(t, r, ack)
	send(t, r, "POST", "/in", body, header...).want(t, 202, `"outcome":"duplicate"`)
	rt.none(t)
}

func TestStoredSurvivesWithoutSettle(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env)
	rt := run(t, r, nil)
	structured := `{"specversion":"1.0","id":"ce","source":"s","type":"t","data":{"n":1.0}}`
	send(t, r, "POST", "/in", "plain\xff", "Webhook-Id", "1", "Content-Type", "text/plain").want(t, 202, "accepted")
	send(t, r, "POST", "/in", structured, "Content-Type", "application/cloudevents+json").want(t, 202, "accepted")
	send(t, r, "POST", "/in", "", "Webhook-Id", "3").want(t, 202, "accepted")
	before := []*cloudevents.Delivery{rt.next(t), rt.next(t), rt.next(t)}
	rt.stop()
	if err := r.Close(t.Context()); err != nil { // nothing was settled
		t.Fatal(err)
	}
	before[0].Settle(cloudevents.Acked()) // too late to count

	r = openStored(t, again(env))
	rt = run(t, r, ack)
	for i, b := range before {
		d := rt.next(t)
		if string(d.Body) != string(b.Body) || string(d.Event.JSON()) != string(b.Event.JSON()) || d.Attempt != 1 {
			t.Errorf("delivery %d came back as %s, was %s", i, d.Event.JSON(), b.Event.JSON())
		}
	}
	waitFor(t, "the rows to go", func() bool { return r.waiting() == 0 })
}

func TestStoredOrder(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env)
	rt := run(t, r, nil)
	const n = 300 // several pages
	for i := range n {
		send(t, r, "POST", "/in", "x", "Webhook-Id", strconv.Itoa(i)).want(t, 202, "")
	}
	check := func(rt *route) {
		t.Helper()
		for i := range n {
			if d := rt.next(t); d.Event.ID() != strconv.Itoa(i) {
				t.Fatalf("delivery %d is %s", i, d.Event.ID())
			}
		}
	}
	check(rt)
	rt.stop()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = openStored(t, again(env))
	check(run(t, r, ack))
	waitFor(t, "the rows to go", func() bool { return r.waiting() == 0 })
}

func TestStoredInterruptedKeepsOrder(t *testing.T) {
	t.Parallel()
	r := openStored(t, newEnv(t, "in"))
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = r.Read(ctx, func(ctx context.Context, _ *cloudevents.Delivery) error {
			close(blocked)
			<-ctx.Done() // the window is full
			return ctx.Err()
		})
	})
	waitFor(t, "ready", r.hook.ready)
	for i := range 5 {
		send(t, r, "POST", "/in", "x", "Webhook-Id", strconv.Itoa(i)).want(t, 202, "")
	}
	<-blocked
	cancel()
	wg.Wait()
	rt := run(t, r, ack)
	for i := range 5 {
		if d := rt.next(t); d.Event.ID() != strconv.Itoa(i) || d.Attempt != 1 {
			t.Fatalf("delivery %d is %s, attempt %d", i, d.Event.ID(), d.Attempt)
		}
	}
}

func TestStoredRetry(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env)
	rt := run(t, r, func(d *cloudevents.Delivery) cloudevents.Outcome {
		if d.Event.ID() == "bad" && d.Attempt < 4 {
			return cloudevents.Retried(errors.New("no"), 5*time.Millisecond)
		}
		return cloudevents.Acked()
	})
	for _, id := range []string{"bad", "good"} {
		send(t, r, "POST", "/in", "x", "Webhook-Id", id).want(t, 202, "")
	}
	attempts := map[string]int{}
	for range 5 {
		d := rt.next(t)
		attempts[d.Event.ID()]++
		if d.Attempt != attempts[d.Event.ID()] {
			t.Errorf("%s: attempt %d is called %d", d.Event.ID(), attempts[d.Event.ID()], d.Attempt)
		}
	}
	if diff := cmp.Diff(map[string]int{"bad": 4, "good": 1}, attempts); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	waitFor(t, "the rows to go", func() bool { return r.waiting() == 0 })
}

func TestStoredRetrySurvives(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env)
	rt := run(t, r, nil)
	send(t, r, "POST", "/in", "x", "Webhook-Id", "slow").want(t, 202, "")
	send(t, r, "POST", "/in", "x", "Webhook-Id", "soon").want(t, 202, "")
	rt.next(t).Settle(cloudevents.Retried(nil, time.Hour))
	rt.next(t).Settle(cloudevents.Retried(nil, time.Millisecond))
	if d := rt.next(t); d.Event.ID() != "soon" || d.Attempt != 2 {
		t.Errorf("got %s, attempt %d", d.Event.ID(), d.Attempt)
	}
	rt.stop()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = openStored(t, again(env))
	rt = run(t, r, ack)
	if d := rt.next(t); d.Event.ID() != "soon" || d.Attempt != 2 {
		t.Errorf("after a restart got %s, attempt %d", d.Event.ID(), d.Attempt)
	}
	waitFor(t, "only the slow one to wait", func() bool { return r.waiting() == 1 })
	rt.none(t)
}

func TestStoredBackOff(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	s := &spool{now: func() time.Time { return now }, wake: make(chan struct{}, 1)}
	for attempts, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 30: maxBackOff, 10000: maxBackOff} {
		s.outcomes = nil
		s.settle(&stored{attempts: attempts}, cloudevents.Retried(nil, 0))
		if got := s.outcomes[0].due.Sub(now); got != want {
			t.Errorf("after %d attempts: %v, want %v", attempts, got, want)
		}
	}
	s.outcomes = nil
	s.settle(&stored{}, cloudevents.Left("stopping"))
	if got := s.outcomes[0]; got.due.Sub(now) != leftAfter || got.verdict != cloudevents.Leave {
		t.Errorf("left: %+v", got)
	}
}

func TestStoredLeftIsNoAttempt(t *testing.T) {
	t.Parallel()
	r := openStored(t, newEnv(t, "in"))
	left := false
	rt := run(t, r, func(*cloudevents.Delivery) cloudevents.Outcome {
		if !left {
			left = true
			return cloudevents.Left("rebalanced")
		}
		return cloudevents.Dropped("bad", nil)
	})
	send(t, r, "POST", "/in", "x").want(t, 202, "")
	for range 2 {
		if d := rt.next(t); d.Attempt != 1 {
			t.Errorf("attempt %d", d.Attempt)
		}
	}
	waitFor(t, "the dropped row to go", func() bool { return r.waiting() == 0 })
}

func TestStoredLimits(t *testing.T) {
	t.Parallel()
	r := openStored(t, newEnv(t, "in"), "maxSpool", "3", "maxSpoolSize", "1000")
	rt := run(t, r, nil)
	one := func(id string) string { return `{"specversion":"1.0","id":"` + id + `","source":"s","type":"t"}` }
	batch := []string{"Content-Type", "application/cloudevents-batch+json"}
	send(t, r, "POST", "/in", "["+one("1")+","+one("2")+"]", batch...).want(t, 202, "")
	send(t, r, "POST", "/in", "["+one("3")+","+one("4")+"]", batch...).want(t, 503, "cannot be stored")
	send(t, r, "POST", "/in", "["+one("1")+"]", batch...).want(t, 202, "duplicate")
	send(t, r, "POST", "/in", strings.Repeat("x", 1000)).want(t, 503, "cannot be stored")
	if r.waiting() != 2 {
		t.Errorf("%d wait, want 2: a batch is stored whole or not at all", r.waiting())
	}
	rt.next(t).Settle(cloudevents.Acked())
	rt.next(t).Settle(cloudevents.Acked())
	waitFor(t, "room", func() bool { return r.waiting() == 0 })
	send(t, r, "POST", "/in", "["+one("3")+","+one("4")+"]", batch...).want(t, 202, "")
	if d := rt.next(t); d.Event.ID() != "3" {
		t.Errorf("got %s", d.Event.ID())
	}
}

func TestStoredWithoutWindow(t *testing.T) {
	t.Parallel()
	r := openStored(t, newEnv(t, "in"), "replayWindow", "0s")
	rt := run(t, r, nil)
	send(t, r, "POST", "/in", "x", "Webhook-Id", "1").want(t, 202, "accepted")
	send(t, r, "POST", "/in", "x", "Webhook-Id", "1").want(t, 202, "duplicate")
	rt.next(t).Settle(cloudevents.Acked())
	waitFor(t, "the row to go", func() bool { return r.waiting() == 0 })
	send(t, r, "POST", "/in", "x", "Webhook-Id", "1").want(t, 202, "accepted")
	rt.next(t)
}

func TestTrim(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	s, release, err := openSpool(t.Context(), env, options{MaxSpool: 10, MaxSpoolSize: 1000, ReplayWindow: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = release() }()
	now := time.Unix(1e6, 0)
	s.now = func() time.Time { return now }
	event, err := cloudevents.New("", nil, cloudevents.Attr{Name: "id", Value: "1"}, cloudevents.Attr{Name: "source", Value: "s"},
		cloudevents.Attr{Name: "type", Value: "t"})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"old, delivered", "old, waiting", "new"} {
		if key == "new" {
			now = now.Add(time.Hour + time.Second)
		}
		if _, err := s.put(t.Context(), []item{{key: key, event: event}}); err != nil {
			t.Fatal(err)
		}
	}
	s.settle(&stored{seq: 1, id: "old, delivered"}, cloudevents.Acked())
	waitFor(t, "the first to go", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rows == 2
	})
	if err := s.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	rows, err := s.db.Read().QueryContext(t.Context(), "SELECT id FROM webhook_seen ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		left = append(left, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"new", "old, waiting"}, left); diff != "" {
		t.Errorf("ids remembered (-want +got):\n%s", diff)
	}
}

func TestDamagedRowHoldsUpNobody(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	r := openStored(t, env)
	rt := run(t, r, nil)
	for _, id := range []string{"1", "2", "3"} {
		send(t, r, "POST", "/in", "x", "Webhook-Id", id).want(t, 202, "")
		rt.next(t)
	}
	err := r.hook.spool.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE webhook_spool SET attrs = CASE id WHEN '1' THEN '{' ELSE attrs END, metadata = CASE id WHEN '2' THEN '' ELSE metadata END`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rt.stop()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = openStored(t, again(env))
	rt = run(t, r, ack)
	if d := rt.next(t); d.Event.ID() != "3" {
		t.Errorf("got %s", d.Event.ID())
	}
	waitFor(t, "two rows to stay", func() bool { return r.waiting() == 2 })
	rt.none(t)
}

func TestReloadSharesSpool(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	before := openStored(t, env)
	old := run(t, before, nil)
	send(t, before, "POST", "/in", "x", "Webhook-Id", "1").want(t, 202, "")
	held := old.next(t)
	after := openStored(t, env)
	rt := run(t, after, ack)
	send(t, after, "POST", "/in", "x", "Webhook-Id", "2").want(t, 202, "")
	old.next(t).Settle(cloudevents.Acked()) // still the old one's turn
	old.stop()
	send(t, after, "POST", "/in", "x", "Webhook-Id", "3").want(t, 202, "")
	if d := rt.next(t); d.Event.ID() != "3" {
		t.Errorf("got %s: what the old one holds is not delivered twice", d.Event.ID())
	}
	held.Settle(cloudevents.Acked())
	if err := before.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	waitFor(t, "all to be delivered", func() bool { return after.waiting() == 0 })
	rt.none(t)
}

func TestSpoolCannotOpen(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	_, err := Component.Open(t.Context(), env, settings("answer", "accepted", "connectionString", env.DataDir, "listen", "127.0.0.1:0"))
	if fault.KindOf(err) != fault.Invalid || err == nil {
		t.Errorf("a folder as database: %v", err)
	}
}

const childEnv = "PENSTOCK_TEST_WEBHOOK_CHILD"

// child is a process that takes requests and delivers nothing, until killed.
func child(dir string) {
	env := component.Env{Name: "in", DataDir: dir, Shared: &component.Shared{}, Logger: slog.New(slog.DiscardHandler)}
	ctx := context.Background()
	d, err := Component.Open(ctx, env, settings("listen", "127.0.0.1:0", "answer", "accepted"))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	r := d.(*receiver)
	go func() {
		_ = r.Read(ctx, func(context.Context, *cloudevents.Delivery) error { return nil })
	}()
	tick := time.NewTicker(time.Millisecond)
	for !r.hook.ready() {
		<-tick.C
	}
	tick.Stop()
	fmt.Println(r.listener.address)
	select {}
}

// TestKill kills processes under load: what was answered 202 is delivered by
// the next one.
func TestKill(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	accepted := map[string]bool{}
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+env.DataDir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var address string
		if _, err := fmt.Fscanln(out, &address); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		taken := make(chan struct{}, 10000)
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, w, i)
					if !post(t.Context(), address, id) {
						return
					}
					mu.Lock()
					accepted[id] = true
					mu.Unlock()
					taken <- struct{}{}
				}
			})
		}
		for range 20 {
			<-taken
		}
		_ = cmd.Process.Kill()
		wg.Wait()
		_ = cmd.Wait()
	}
	r := openStored(t, env)
	rt := run(t, r, ack)
	waitFor(t, "everything to be delivered", func() bool { return r.waiting() == 0 })
	rt.stop()
	close(rt.got)
	for d := range rt.got {
		delete(accepted, d.Event.ID())
	}
	if len(accepted) > 0 {
		t.Errorf("%d accepted events were lost: %v", len(accepted), accepted)
	}
}

func post(ctx context.Context, address, id string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/in", strings.NewReader("x"))
	if err != nil {
		return false
	}
	req.Header.Set("Webhook-Id", id)
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode == http.StatusAccepted
}
