package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// lanesWide is how many clients publish at once, each on its own connection.
const lanesWide = 16

// receiver is the program that events are delivered to. It answers subscriptions
// with those it is made of, and hands deliveries to whoever published them.
type receiver struct {
	address       string
	subscriptions []map[string]any
	server        http.Server
	// arrived has a channel for each worker.
	arrived []chan struct{}
	// handle is called for each delivery before it is answered.
	handle func(body []byte)
	count  atomic.Int64
}

func newReceiver(workers int) (*receiver, error) {
	a := &receiver{arrived: make([]chan struct{}, workers)}
	for i := range a.arrived {
		a.arrived[i] = make(chan struct{}, 16)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.address = l.Addr().String()
	a.server.Handler = http.HandlerFunc(a.serve)
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

func (a *receiver) port() string {
	_, port, _ := net.SplitHostPort(a.address)
	return port
}

func (a *receiver) close() { _ = a.server.Close() }

func (a *receiver) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.subscriptions)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if a.handle != nil {
		a.handle(body)
	}
	a.count.Add(1)
	if i := number(body, "worker"); i >= 0 && i < len(a.arrived) {
		a.arrived[i] <- struct{}{}
	}
}

// number reads "name":123 out of a body, wherever it is; -1 when it is nowhere.
func number(body []byte, name string) int {
	_, rest, ok := bytes.Cut(body, []byte(`"`+name+`":`))
	if !ok {
		return -1
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(string(rest[:end]))
	if err != nil {
		return -1
	}
	return n
}

// payload is 256 bytes of JSON that name the worker.
func payload(worker int) []byte {
	const size = 256
	text := fmt.Sprintf(`{"worker":%d,"text":"`, worker)
	return append(append([]byte(text), bytes.Repeat([]byte("x"), size-len(text)-2)...), `"}`...)
}

// publisher is one connection that publishes the same request again and again.
type publisher struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	// turns, when there are any, are sent one after the other instead.
	turns [][]byte
	turn  int
}

func dialPublisher(address, path string, body []byte) (*publisher, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, address, len(body))
	return &publisher{conn: conn, in: bufio.NewReader(conn), request: append([]byte(head), body...)}, nil
}

// publish sends the request and wants a 204.
func (p *publisher) publish() error {
	request := p.request
	if len(p.turns) > 0 {
		request = p.turns[p.turn%len(p.turns)]
		p.turn++
	}
	if _, err := p.conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("publish: %s: %s", resp.Status, text)
	}
	return nil
}

// flow publishes with every worker until the time is over: one event at a time,
// the next one when it has arrived at the app. It returns how many arrived.
func (a *receiver) flow(ctx context.Context, publishers []*publisher, d time.Duration) (int, error) {
	return a.flowFrom(ctx, 0, publishers, d)
}

// flowFrom is flow with publishers whose numbers begin at first.
func (a *receiver) flowFrom(ctx context.Context, first int, publishers []*publisher, d time.Duration) (int, error) {
	end := time.Now().Add(d)
	var n atomic.Int64
	errs := make([]error, len(publishers))
	var wg sync.WaitGroup
	for i, p := range publishers {
		wg.Go(func() {
			for time.Now().Before(end) && errs[i] == nil {
				if errs[i] = p.publish(); errs[i] != nil {
					return
				}
				select {
				case <-a.arrived[first+i]:
					n.Add(1)
				case <-ctx.Done():
					errs[i] = ctx.Err()
				case <-time.After(10 * time.Second):
					errs[i] = errors.New("an event did not arrive within 10 s")
				}
			}
		})
	}
	wg.Wait()
	return int(n.Load()), errors.Join(errs...)
}
