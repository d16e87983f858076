package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

const (
	groupLimit = 256 // functions in one commit
	stmtLimit  = 256 // prepared statements kept
)

var (
	errClosed = fault.New(fault.Unavailable, "write: the database is closed")
	errEnded  = fault.New(fault.Internal, "write: the function ended the transaction itself")
)

// writer owns the one write connection. Everything below mu is for callers;
// the rest belongs to its goroutine.
type writer struct {
	db   *sql.DB
	wake chan struct{} // holds one token while queue is not empty or closed is set
	done chan struct{}

	mu     sync.Mutex
	queue  []*request
	closed bool

	live  map[string]*sql.Stmt // statements of the open transaction
	kept  map[string]*sql.Stmt // statements of the connection
	fresh []string             // queries to be kept once the connection is free
}

// request is one caller's function.
type request struct {
	fn    func(*sql.Tx) error
	err   error
	panic string // value and stack
	done  chan struct{}
}

func startWriter(ctx context.Context, db *sql.DB) *writer {
	w := &writer{
		db: db, wake: make(chan struct{}, 1), done: make(chan struct{}),
		live: map[string]*sql.Stmt{}, kept: map[string]*sql.Stmt{},
	}
	go w.run(ctx)
	return w
}

// stop ends the goroutine after what is queued is written.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ring()
	<-w.done
}

func (w *writer) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *writer) write(ctx context.Context, fn func(*sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(err, "write")
	}
	r := &request{fn: fn, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errClosed
	}
	w.queue = append(w.queue, r)
	w.mu.Unlock()
	w.ring()
	select {
	case <-r.done:
	case <-ctx.Done():
		if w.withdraw(r) {
			return fault.Wrap(ctx.Err(), "write")
		}
		<-r.done
	}
	if r.panic != "" {
		panic(r.panic)
	}
	return classify(r.err)
}

// withdraw takes r out of the queue unless it was taken already.
func (w *writer) withdraw(r *request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.queue, r)
	if i < 0 {
		return false
	}
	w.queue = slices.Delete(w.queue, i, i+1)
	return true
}

func (w *writer) run(ctx context.Context) {
	defer close(w.done)
	var group []*request
	for {
		<-w.wake
		var ended bool
		if group, ended = w.take(group[:0]); len(group) > 0 {
			w.commit(ctx, group)
			for i, r := range group {
				group[i] = nil
				close(r.done)
			}
			// Callers that were just released are about to come back; letting
			// them queue first makes the next group whole.
			runtime.Gosched()
		}
		if ended {
			w.keep(ctx)
			return
		}
	}
}

// take moves what is queued into group, at most groupLimit, and tells whether
// nothing more will come.
func (w *writer) take(group []*request) ([]*request, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.queue), groupLimit)
	group = append(group, w.queue[:n]...)
	w.queue = slices.Delete(w.queue, 0, n)
	if len(w.queue) > 0 {
		w.ring()
		return group, false
	}
	return group, w.closed
}

// commit runs the group in one transaction. When a function fails, all run
// again with a savepoint each, so that only the failed one is undone; when
// SQLite has given the whole transaction up, they run one by one.
func (w *writer) commit(ctx context.Context, group []*request) {
	w.keep(ctx)
	if w.attempt(ctx, group, false) || w.attempt(ctx, group, true) {
		return
	}
	for i := range group {
		w.attempt(ctx, group[i:i+1], false)
	}
}

// attempt runs the group in one transaction and sets every outcome. It returns
// false, with nothing kept, when that needs another way.
func (w *writer) attempt(ctx context.Context, group []*request, guarded bool) bool {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		setAll(group, err)
		return true
	}
	defer clear(w.live)
	for _, r := range group {
		ok := false
		if guarded {
			ok = r.runGuarded(tx)
		} else {
			ok = r.run(tx)
		}
		if !ok {
			_ = tx.Rollback() // when it is gone already, all the better
			return len(group) == 1
		}
	}
	err = tx.Commit()
	if errors.Is(err, sql.ErrTxDone) {
		err = errEnded
	}
	for _, r := range group {
		if r.err == nil {
			r.err = err
		}
	}
	return true
}

// run runs the function and tells whether it succeeded. A panic is carried
// over to the caller.
func (r *request) run(tx *sql.Tx) (ok bool) {
	r.err, r.panic = nil, ""
	defer func() {
		if v := recover(); v != nil {
			r.err = fault.New(fault.Internal, "write: panic: %v", v)
			r.panic = fmt.Sprintf("%v\n\n%s", v, debug.Stack())
		}
	}()
	r.err = r.fn(tx)
	return r.err == nil
}

// runGuarded runs the function inside a savepoint and undoes it when it fails.
// It tells whether the transaction may go on: SQLite ends it, savepoints and
// all, when the disk is full.
func (r *request) runGuarded(tx *sql.Tx) (ok bool) {
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return false
	}
	if !r.run(tx) {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return false
		}
	}
	_, err := tx.Exec("RELEASE one")
	return err == nil
}

func setAll(group []*request, err error) {
	for _, r := range group {
		r.err = err
	}
}

func (w *writer) stmt(tx *sql.Tx, query string) (*sql.Stmt, error) {
	if st := w.live[query]; st != nil {
		return st, nil
	}
	if st := w.kept[query]; st != nil {
		st = tx.Stmt(st)
		w.live[query] = st
		return st, nil
	}
	st, err := tx.Prepare(query)
	if err != nil {
		return nil, err
	}
	w.live[query] = st
	if len(w.kept)+len(w.fresh) < stmtLimit {
		w.fresh = append(w.fresh, query)
	}
	return st, nil
}

// keep prepares the queries seen for the first time in the last transaction;
// it needs the connection, which a transaction holds.
func (w *writer) keep(ctx context.Context) {
	for _, q := range w.fresh {
		if w.kept[q] != nil {
			continue
		}
		if st, err := w.db.PrepareContext(ctx, q); err == nil { // else its next use fails and says why
			w.kept[q] = st
		}
	}
	w.fresh = w.fresh[:0]
}
