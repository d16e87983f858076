package invoke

import (
	"bytes"
	"io"
	"sync"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// Replay is how much of a request's body is kept for another try, in bytes. A
// request of which more was sent is not tried again.
const Replay = 64 << 10

// replay is the body of a request that may be sent more than once. Its views read
// what was read before and then go on with the source, one at a time: a view that
// was replaced reads nothing more, and what it was just reading is not lost.
type replay struct {
	src io.ReadCloser // nil: there is no body

	mu   sync.Mutex // held while reading from src
	kept []byte     // what was read, up to the bound
	lost bool       // more than that was read
	end  error      // how src ended

	now   sync.Mutex // guards what follows
	owner *view
	ended bool
}

func newReplay(src io.ReadCloser) *replay { return &replay{src: src} }

// view returns the body for another try, or nil when there is none.
func (b *replay) view() io.ReadCloser {
	if b.src == nil {
		return nil
	}
	b.now.Lock()
	defer b.now.Unlock()
	b.owner = &view{b: b}
	return b.owner
}

// again tells whether the body can be sent once more: not what is broken, which
// it would be again.
func (b *replay) again() bool {
	if b.src == nil {
		return true
	}
	b.now.Lock()
	b.owner = nil
	b.now.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lost && (b.end == nil || b.end == io.EOF)
}

// detach says that there will be no more views; the last one closes the source.
// Without one it is closed here.
func (b *replay) detach() {
	if b.src == nil {
		return
	}
	b.now.Lock()
	defer b.now.Unlock()
	b.ended = true
	if b.owner == nil || b.owner.closed {
		_ = b.src.Close() // nothing is read from it any more
	}
}

func (b *replay) owned(v *view) bool {
	b.now.Lock()
	defer b.now.Unlock()
	return b.owner == v
}

// errReplaced is what a view reads when another one took its place.
var errReplaced = fault.New(fault.Unavailable, "read request body: the request is sent once more")

// view is one reading of the body.
type view struct {
	b      *replay
	at     int  // how much was read
	closed bool // under now of b
}

// Read implements [io.Reader].
func (v *view) Read(p []byte) (int, error) {
	b := v.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.owned(v) {
		return 0, errReplaced
	}
	if v.at < len(b.kept) && !b.lost {
		n := copy(p, b.kept[v.at:])
		v.at += n
		return n, nil
	}
	if b.end != nil {
		return 0, b.end
	}
	n, err := b.src.Read(p)
	b.end = err
	if !b.lost {
		if len(b.kept)+n > Replay {
			b.lost, b.kept = true, nil
		} else {
			b.kept = append(b.kept, p[:n]...)
		}
	}
	v.at += n
	if !b.owned(v) {
		return 0, errReplaced
	}
	return n, err
}

// Close implements [io.Closer]. The source is closed with the last view: a
// transport closes what it was given also when it failed.
func (v *view) Close() error {
	b := v.b
	b.now.Lock()
	defer b.now.Unlock()
	if b.owner != v || v.closed {
		return nil
	}
	v.closed = true
	if !b.ended {
		return nil // there may be another view
	}
	return b.src.Close()
}

// Again returns the body from its beginning, see [message.RoundTrip].
func (v *view) Again() (io.ReadCloser, error) {
	if !v.b.again() {
		return nil, fault.New(fault.Unavailable, "send request body once more: more than %d bytes of it were sent", Replay)
	}
	return v.b.view(), nil
}

// keep reads the body of an answer that is a failure and lets go of the
// connection, so that nothing is held while waiting for the next try. It returns
// false, with the body as it was, when it is long.
func keep(r *message.Response) bool {
	head := make([]byte, Replay+1)
	n, err := io.ReadFull(r.Body, head)
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		_ = r.Body.Close() // it was read to its end
		r.Body = io.NopCloser(bytes.NewReader(head[:n]))
		return true
	case nil:
		rest := r.Body
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head[:n]), rest), rest}
		return false
	}
	_ = r.Body.Close() // it broke: the next try may be better
	r.Body = io.NopCloser(bytes.NewReader(head[:n]))
	return true
}
