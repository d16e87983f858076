package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const keys = 32

// load publishes events of 32 keys at a steady rate, those of one key one after
// the other, through whatever sidecars run.
type load struct {
	keeper *Keeper
	client *http.Client
	rate   int // events a second
	url    func(key int) string

	poison   atomic.Bool // make the next event of the first key poison
	mu       sync.Mutex
	poisoned map[string]bool
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// start publishes until stop. The bytes of the events come from the seed.
func (l *load) start(ctx context.Context, seed uint64) {
	l.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: keys}}
	l.poisoned = map[string]bool{}
	ctx, l.cancel = context.WithCancel(ctx)
	for key := range keys {
		l.running.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(key)))
			pause := keys * time.Second / time.Duration(l.rate)
			for seq := 1; ; seq++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause/2 + time.Duration(rng.Int64N(int64(pause)))):
				}
				l.publish(context.WithoutCancel(ctx), key, seq, rng)
			}
		})
	}
}

// stop ends the load and waits for the answers that are under way.
func (l *load) stop() {
	l.cancel()
	l.running.Wait()
	l.client.CloseIdleConnections()
}

func (l *load) publish(ctx context.Context, key, seq int, rng *rand.Rand) {
	e := event{Key: fmt.Sprintf("k%02d", key), Seq: seq, Pad: strings.Repeat("x", rng.IntN(300)) + fmt.Sprint(rng.Uint64())}
	e.ID = fmt.Sprintf("%s-%d", e.Key, seq)
	if key == 0 && l.poison.CompareAndSwap(true, false) {
		e.Poison = true
		l.mu.Lock()
		l.poisoned[e.ID] = true
		l.mu.Unlock()
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	entry := Entry{What: Intent, ID: e.ID, Key: e.Key, Seq: seq, Sum: sum(data)}
	l.keeper.Producer(entry)
	entry.What, entry.Code = l.post(ctx, l.url(key)+"?metadata.partitionKey="+e.Key, data)
	l.keeper.Producer(entry)
}

// post tells what is known of the publish afterwards. A server error may come
// after the broker had the event.
func (l *load) post(ctx context.Context, url string, data []byte) (What, int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return Failed, 0
		}
		return Unknown, 0
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	switch resp.StatusCode / 100 {
	case 2:
		return OK, resp.StatusCode
	case 4:
		return Failed, resp.StatusCode
	}
	return Unknown, resp.StatusCode
}
