package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// outboxStore is a state store that publishes what is saved in it.
func outboxStore(kind, version string, options ...string) string {
	return resource("kept", kind, version, append(options, "outboxPublishPubsub", "bus", "outboxPublishTopic", "load")...)
}

// resource is the document of a component; the options are names and values by
// turns.
func resource(name, kind, version string, options ...string) string {
	var text strings.Builder
	text.WriteString("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec:\n  type: " + kind + "\n  version: " + version + "\n  metadata:\n")
	for i := 0; i < len(options); i += 2 {
		fmt.Fprintf(&text, "    - {name: %s, value: %q}\n", options[i], options[i+1])
	}
	return text.String()
}

func outboxInSQLite(s *sidecar) string {
	return outboxStore("state.sqlite", "v1", "connectionString", s.data+"/state.db")
}

// transact saves a value under a key of its own, which publishes it. It tells
// when it was answered; not at all is zero.
func (l *load) transact(ctx context.Context, id string) time.Time {
	return l.save(ctx, "s-"+id, id)
}

// save is transact for a key that is saved again and again.
func (l *load) save(ctx context.Context, key, id string) time.Time {
	body := fmt.Sprintf(`{"operations":[{"operation":"upsert","request":{"key":%q,"value":{"key":%q,"note":"[id-%s]"}}}]}`, key, key, id)
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, l.s.API("/state/kept/transaction"), strings.NewReader(body))
	if err != nil {
		return time.Time{}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		return time.Time{}
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		l.refused.Add(1)
		return time.Time{}
	}
	return time.Now()
}

// TestOutboxKill ends penstock with SIGKILL at random moments under
// transactions. Of every one, answered or not, both the state and the event are
// there, or neither.
func TestOutboxKill(t *testing.T) { outboxKill(t, outboxInSQLite) }

func outboxKill(t *testing.T, store func(*sidecar) string) {
	t.Helper()
	a := newApp(t)
	s := newSidecar(t, a.port)
	s.write("store.yaml", store(s))
	s.start()
	l := &load{s: s, client: &http.Client{Timeout: 10 * time.Second}, pause: 2 * time.Millisecond, accepted: map[string][]string{}}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(t.Context())
	for range 4 {
		l.run(ctx, func() {
			id := l.id()
			if l.transact(ctx, id).IsZero() {
				l.keep("unanswered", id)
			} else {
				l.keep("answered", id)
			}
		})
	}
	n := rounds(10, 50)
	for range n {
		wait(50*time.Millisecond + rand.N(250*time.Millisecond))
		s.Kill()
		s.start()
	}
	l.stop()
	answered, unanswered := l.accepted["answered"], l.accepted["unanswered"]
	if len(answered) == 0 {
		t.Fatal("no transaction was answered: the test shows nothing")
	}
	eventually(t, time.Minute, "the outbox is empty", func() bool {
		code, text := s.get(t, "/v1.0-penstock/state/kept?prefix=outbox-")
		return code == http.StatusOK && strings.Contains(text, `"keys":[]`)
	})
	eventually(t, time.Minute, "every answered transaction's event has come", func() bool {
		missing, _ := a.tally(answered)
		return len(missing) == 0
	})
	without, phantom := 0, 0
	for _, id := range slices.Concat(answered, unanswered) {
		code, _ := s.get(t, "/v1.0/state/kept/s-"+id)
		missing, _ := a.tally([]string{id})
		saved, seen := code == http.StatusOK, len(missing) == 0
		switch {
		case saved && !seen:
			without++
		case seen && !saved:
			phantom++
		case !saved && slices.Contains(answered, id):
			t.Errorf("transaction %s was answered, and is not there", id)
		}
	}
	_, duplicates := a.tally(nil)
	fmt.Printf("%s: killed %d times, %d transactions answered, %d not; state without event %d, event without state %d, duplicates %d\n",
		t.Name(), n, len(answered), len(unanswered), without, phantom, duplicates)
	if without > 0 || phantom > 0 {
		t.Error("state and events do not agree")
	}
	s.stop()
}

// TestOutboxLatency prints how long after a transaction's answer its event is
// with the app: an upper bound of when it was published.
func TestOutboxLatency(t *testing.T) { outboxLatency(t, outboxInSQLite) }

func outboxLatency(t *testing.T, store func(*sidecar) string) {
	t.Helper()
	a := newApp(t)
	a.at = map[string]time.Time{}
	s := newSidecar(t, a.port)
	s.write("store.yaml", store(s))
	s.start()
	l := &load{s: s, client: &http.Client{Timeout: 10 * time.Second}, accepted: map[string][]string{}}
	var took []time.Duration
	for range rounds(200, 500) {
		id := l.id()
		at := l.transact(t.Context(), id)
		if at.IsZero() {
			t.Fatal("a transaction failed")
		}
		eventually(t, time.Minute, "the event", func() bool {
			missing, _ := a.tally([]string{id})
			return len(missing) == 0
		})
		a.mu.Lock()
		took = append(took, a.at[id].Sub(at))
		a.mu.Unlock()
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	fmt.Printf("%s: %d transactions, event with the app after p50 %v, p99 %v\n", t.Name(), len(took), took[len(took)/2], p99)
	if p99 > time.Second {
		t.Errorf("p99 is %v: an event waits for something", p99)
	}
	s.stop()
}

// get reads from penstock; the path is with its version.
func (s *sidecar) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", s.Port, path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestOutboxTerminate ends penstock with SIGTERM under transactions: every event
// comes, and none twice, because a stop waits until what was published is
// deleted.
func TestOutboxTerminate(t *testing.T) { outboxTerminate(t, outboxInSQLite) }

func outboxTerminate(t *testing.T, store func(*sidecar) string) {
	t.Helper()
	a := newApp(t)
	s := newSidecar(t, a.port)
	s.write("store.yaml", store(s))
	s.start()
	l := &load{s: s, client: &http.Client{Timeout: 10 * time.Second}, pause: 2 * time.Millisecond, accepted: map[string][]string{}}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(t.Context())
	for range 4 {
		l.run(ctx, func() {
			if id := l.id(); !l.transact(ctx, id).IsZero() {
				l.keep("answered", id)
			}
		})
	}
	for range rounds(5, 20) {
		wait(100*time.Millisecond + rand.N(200*time.Millisecond))
		s.stop()
		s.start()
	}
	l.stop()
	answered := l.accepted["answered"]
	eventually(t, time.Minute, "every answered transaction's event has come", func() bool {
		missing, _ := a.tally(answered)
		return len(answered) > 0 && len(missing) == 0
	})
	s.stop()
	if _, duplicates := a.tally(nil); duplicates > 0 {
		t.Errorf("%d of %d events came twice, though every stop was clean", duplicates, len(answered))
	}
}

// TestOutboxOrder saves a few keys again and again while penstock is killed: the
// first arrivals of each key's events are in the order of their saving.
func TestOutboxOrder(t *testing.T) { outboxOrder(t, outboxInSQLite) }

func outboxOrder(t *testing.T, store func(*sidecar) string) {
	t.Helper()
	a := newApp(t)
	a.order = "event.data.key"
	s := newSidecar(t, a.port)
	s.write("store.yaml", store(s))
	s.start()
	l := &load{s: s, client: &http.Client{Timeout: 10 * time.Second}, pause: time.Millisecond, accepted: map[string][]string{}}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(t.Context())
	for _, key := range []string{"a", "b", "c", "d"} {
		n := 0
		l.run(ctx, func() {
			n++
			if id := fmt.Sprintf("%s-%06d", key, n); !l.save(ctx, key, id).IsZero() {
				l.keep("answered", id)
			}
		})
	}
	for range rounds(5, 20) {
		wait(100*time.Millisecond + rand.N(200*time.Millisecond))
		s.Kill()
		s.start()
	}
	wait(200 * time.Millisecond)
	l.stop()
	answered := l.accepted["answered"]
	eventually(t, time.Minute, "every answered transaction's event has come", func() bool {
		missing, _ := a.tally(answered)
		return len(answered) > 0 && len(missing) == 0
	})
	s.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	last := map[string]string{}
	for _, id := range a.firsts {
		key, _, _ := strings.Cut(id, "-")
		if id < last[key] {
			t.Errorf("%s came after %s", id, last[key])
		}
		last[key] = id
	}
	fmt.Printf("%s: %d transactions answered, %d events, each key's in order\n", t.Name(), len(answered), len(a.firsts))
}
