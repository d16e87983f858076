package crash

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load sends events by publish, webhook and file until it is stopped and keeps
// the ids of those that were accepted.
type load struct {
	s       *sidecar
	client  *http.Client
	pause   time.Duration // between two requests of one sender
	next    atomic.Int64
	refused atomic.Int64 // answered, but not with success

	mu       sync.Mutex
	accepted map[string][]string // by kind
	wg       sync.WaitGroup
	cancel   context.CancelFunc
}

func startLoad(t *testing.T, s *sidecar, pause time.Duration) *load {
	t.Helper()
	l := &load{s: s, client: &http.Client{Timeout: 10 * time.Second}, pause: pause, accepted: map[string][]string{}}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(t.Context())
	for range 4 {
		l.run(ctx, func() { l.post(ctx, "publish", s.API("/publish/bus/load")) })
	}
	for range 2 {
		l.run(ctx, func() { l.post(ctx, "webhook", s.hook) })
	}
	l.run(ctx, l.drop)
	return l
}

func (l *load) run(ctx context.Context, send func()) {
	l.wg.Go(func() {
		tick := time.NewTicker(l.pause)
		defer tick.Stop()
		for {
			send()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

func (l *load) id() string { return fmt.Sprint(l.next.Add(1)) }

func (l *load) keep(kind string, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[kind] = append(l.accepted[kind], ids...)
}

// post sends one event. Without an answer nobody promised anything.
func (l *load) post(ctx context.Context, kind, url string) {
	id := l.id()
	body := fmt.Sprintf(`{"note":"[id-%s]"}`, id)
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		l.keep(kind, id)
		return
	}
	l.refused.Add(1)
}

// drop puts a file of ten lines into the inbox; it counts as accepted when it
// is there under its name.
func (l *load) drop() {
	var ids []string
	var text strings.Builder
	for range 10 {
		id := l.id()
		ids = append(ids, id)
		fmt.Fprintf(&text, "[id-%s]\n", id)
	}
	tmp := filepath.Join(l.s.data, "drop.tmp")
	name := filepath.Join(l.s.inbox, ids[0]+".txt")
	if os.WriteFile(tmp, []byte(text.String()), 0o600) == nil && os.Rename(tmp, name) == nil {
		l.keep("file", ids...)
	}
}

// settle waits until everything accepted has arrived and prints the account.
func (l *load) settle(t *testing.T, a *app) {
	t.Helper()
	var all []string
	for _, ids := range l.accepted {
		all = append(all, ids...)
	}
	var missing []string
	var duplicates int
	for end := time.Now().Add(60 * time.Second); ; {
		if missing, duplicates = a.tally(all); len(missing) == 0 || time.Now().After(end) {
			break
		}
		tick := time.NewTimer(50 * time.Millisecond)
		<-tick.C
	}
	fmt.Printf("%s: accepted %d (publish %d, webhook %d, file %d), delivered %d, lost %d, duplicates %d, dead letters %d, refused %d\n",
		t.Name(), len(all), len(l.accepted["publish"]), len(l.accepted["webhook"]), len(l.accepted["file"]),
		len(all)-len(missing), len(missing), duplicates, a.dead.Load(), l.refused.Load())
	if len(all) == 0 {
		t.Fatal("nothing was accepted: the test shows nothing")
	}
	for _, kind := range []string{"publish", "webhook", "file"} {
		if lost, _ := a.tally(l.accepted[kind]); len(lost) > 0 {
			t.Errorf("%d of %d by %s are lost, the first is id %s", len(lost), len(l.accepted[kind]), kind, lost[0])
		}
		if len(l.accepted[kind]) == 0 {
			t.Errorf("nothing was accepted by %s", kind)
		}
	}
	if n := a.dead.Load(); n > 0 {
		t.Errorf("%d events were dead-lettered", n)
	}
}
