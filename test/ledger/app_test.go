package ledger

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// event is the data of an event of the load.
type event struct {
	ID     string `json:"ledger"`
	Key    string `json:"key"`
	Seq    int    `json:"seq"`
	Poison bool   `json:"poison,omitempty"`
	Pad    string `json:"pad"`
}

func sum(data []byte) uint32 { return crc32.ChecksumIEEE(data) }

// app is the user's program. It listens on a port for each replica of penstock,
// so that it knows who calls, and writes down what it does before it answers.
type app struct {
	t      *testing.T
	keeper *Keeper
	calls  atomic.Int64

	fails    atomic.Bool  // answer 500
	work     atomic.Int64 // nanoseconds of each call
	abandons atomic.Bool  // do not finish what nobody waits for

	mu       sync.Mutex
	ports    []int
	servers  []*http.Server // nil while the app is down
	hung     string         // the key that is not answered
	released chan struct{}
}

func newApp(t *testing.T, k *Keeper) *app {
	t.Helper()
	a := &app{t: t, keeper: k}
	a.work.Store(int64(5 * time.Millisecond))
	t.Cleanup(a.down)
	return a
}

// port opens a port for one more replica.
func (a *app) port() int {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := freePort(a.t)
	l := listen(a.t, p)
	a.ports = append(a.ports, p)
	a.servers = append(a.servers, a.serve(l, fmt.Sprint(len(a.ports)-1)))
	return p
}

// listen opens a port that was open a moment ago: a process that is being
// started may have it for as long as it takes to run its program.
func listen(t *testing.T, p int) (l net.Listener) {
	t.Helper()
	var err error
	ok := eventually(5*time.Second, func() bool {
		l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		return err == nil
	})
	if !ok {
		t.Fatal(err)
	}
	return l
}

func (a *app) serve(l net.Listener, replica string) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "[]") })
	mux.HandleFunc("POST /load", func(w http.ResponseWriter, r *http.Request) { a.load(w, r, replica) })
	mux.HandleFunc("POST /dead", func(w http.ResponseWriter, r *http.Request) { note(a.keeper.App, Letter, w, r) })
	mux.HandleFunc("POST /letters", func(w http.ResponseWriter, r *http.Request) { note(a.keeper.Sink, Letter, w, r) })
	mux.HandleFunc("POST /sink", func(w http.ResponseWriter, r *http.Request) { note(a.keeper.Sink, Effect, w, r) })
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	return s
}

// down closes the ports and cuts the calls under way.
func (a *app) down() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range a.servers {
		if s != nil {
			s.Close()
			a.servers[i] = nil
		}
	}
}

// up opens the ports again.
func (a *app) up() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, p := range a.ports {
		a.servers[i] = a.serve(listen(a.t, p), fmt.Sprint(i))
	}
}

// hang does not answer the events of one key until release.
func (a *app) hang(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hung, a.released = key, make(chan struct{})
}

func (a *app) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hung = ""
	close(a.released)
}

func (a *app) isHung(key string) (until <-chan struct{}, hung bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.released, a.hung == key
}

// load does the work of one event. An event that fails has no effect.
func (a *app) load(w http.ResponseWriter, r *http.Request, replica string) {
	e, sum, err := readEvent(r)
	if err != nil {
		a.keeper.App(Entry{What: Effect, ID: err.Error(), Replica: replica}) // a phantom
		return
	}
	entry := Entry{What: Begin, ID: e.ID, Key: e.Key, Seq: e.Seq, Sum: sum, Call: a.calls.Add(1), Replica: replica}
	a.keeper.App(entry)
	code := http.StatusOK
	defer func() {
		entry.What, entry.Code = Reply, code
		a.keeper.App(entry)
		w.WriteHeader(code)
	}()
	if until, hung := a.isHung(e.Key); hung {
		select {
		case <-until:
		case <-r.Context().Done():
			code = http.StatusServiceUnavailable
			return
		}
	}
	<-time.After(time.Duration(a.work.Load()))
	if a.abandons.Load() && r.Context().Err() != nil {
		code = http.StatusServiceUnavailable
		return
	}
	if a.fails.Load() || e.Poison {
		code = http.StatusInternalServerError
		return
	}
	entry.What = Effect
	a.keeper.App(entry)
}

// note writes down an event that needs no work.
func note(book func(Entry), what What, w http.ResponseWriter, r *http.Request) {
	e, sum, err := readEvent(r)
	if err != nil {
		e.ID = err.Error()
	}
	book(Entry{What: what, ID: e.ID, Key: e.Key, Seq: e.Seq, Sum: sum})
	w.WriteHeader(http.StatusOK)
}

// readEvent returns the data of the CloudEvent in a request, or what is there
// instead of one, as in a request of an output binding, and the checksum of its
// bytes.
func readEvent(r *http.Request) (e event, sum32 uint32, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return e, 0, err
	}
	return parse(body)
}

func parse(body []byte) (e event, sum32 uint32, err error) {
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return e, 0, fmt.Errorf("%w in %s", err, body)
	}
	data := []byte(envelope.Data)
	if data == nil {
		data = body
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, 0, fmt.Errorf("%w in %s", err, body)
	}
	return e, sum(data), nil
}

// idIn finds the id of the event in whatever a broker holds of it.
func idIn(message []byte) (id string, ok bool) {
	_, rest, ok := strings.Cut(string(message), `"ledger":"`)
	if !ok {
		return "", false
	}
	id, _, ok = strings.Cut(rest, `"`)
	return id, ok
}
