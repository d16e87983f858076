package file

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	ahead       = 16  // lines of one file under way with orderBy file
	aheadNone   = 256 // with orderBy none
	firstPause  = time.Second
	maxPause    = time.Minute
	idlePause   = time.Hour
	readBufSize = 64 << 10
)

// job is one file on its way. Fields below the line are guarded by binding.mu.
type job struct {
	name       string
	identity   identity
	generation string
	file       *os.File // nil when there is nothing to read any more

	stuck bool // used by the finisher only: the problem was logged
	noted bool // used by the finisher only: the ledger has the end of it

	prefix hash.Hash // used by work only: of what was read; nil in mode whole

	wake chan struct{}

	items  map[int64]*item // taken from the file and not settled, by offset
	next   int64           // where reading goes on
	line   int64           // lines before next
	read   bool            // nothing is left to be read
	failed string          // why the file is given up
	sum    []byte          // SHA-256 of the bytes before next; nil in mode whole
	dirty  bool            // the finisher has not seen all
}

// item is one event of a file.
type item struct {
	offset, end int64
	line        int64  // from 1; zero in mode whole
	sum         []byte // SHA-256 of the bytes before offset; nil in mode whole
	attempt     int    // retries so far
	due         time.Time
	state       state
}

type state uint8

const (
	flying  state = iota // with the router
	waiting              // to be handed over at due
	left                 // to be handed over by the next Read
)

// newJob opens a file that is ready; nil when it is not what was seen. r is
// what is remembered about the name.
func (b *binding) newJob(c candidate, r *record) (*job, error) {
	j := &job{
		name: c.name, identity: c.identity, generation: c.identity.String(),
		items: map[int64]*item{}, wake: make(chan struct{}, 1),
	}
	if r != nil && r.identity == c.identity && r.state != stateReading {
		j.generation, j.next, j.line = r.generation, r.position, r.line
		j.read, j.dirty, j.noted = true, true, true
		if r.state == stateFailed {
			j.failed = "given up before"
		}
		return j, nil
	}
	// Without waiting: a pipe may have taken the place of the file.
	f, err := b.root.OpenFile(c.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || identify(info) != c.identity {
		return nil, errors.Join(err, f.Close())
	}
	j.file = f
	switch {
	case b.options.Mode == lines:
		err = j.resume(r)
	case c.identity.size > int64(b.options.MaxFileSize):
		j.fail(fmt.Sprintf("has %d bytes, more than maxFileSize", c.identity.size))
	}
	if err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

// resume goes on behind the lines that are settled, if the file still begins
// with them.
func (j *job) resume(r *record) error {
	j.prefix = sha256.New()
	j.sum = j.prefix.Sum(nil)
	if r == nil || r.position == 0 || r.position > j.identity.size || !r.identity.sameFile(j.identity) {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(j.file, 0, r.position)); err != nil {
		return err
	}
	if sum := h.Sum(nil); bytes.Equal(sum, r.prefix) {
		j.prefix, j.sum = h, sum
		j.generation, j.next, j.line = r.generation, r.position, r.line
	}
	return nil
}

// fail gives the rest of the file up; the caller holds mu or is the only one to
// know j.
func (j *job) fail(why string) { j.read, j.failed, j.dirty = true, why, true }

func (j *job) close() {
	if j.file != nil {
		_ = j.file.Close() // it was only read
	}
}

// work hands out the events of one file until all are settled or ctx ends.
func (b *binding) work(ctx context.Context, emit cloudevents.EmitFunc, j *job) error {
	var in *bufio.Reader
	if b.options.Mode == lines && j.file != nil {
		in = bufio.NewReaderSize(io.NewSectionReader(j.file, j.next, j.identity.size-j.next), readBufSize)
	}
	timer := time.NewTimer(idlePause)
	defer timer.Stop()
	for ctx.Err() == nil {
		it, step := b.choose(j)
		var err error
		switch {
		case it != nil:
			err = b.again(ctx, emit, j, it)
		case step == stepRead && in != nil:
			err = b.readLine(ctx, emit, j, in)
		case step == stepRead:
			err = b.readWhole(ctx, emit, j)
		case step == stepEnd:
			ring(b.wakeFinish)
			return nil
		default:
			timer.Reset(step)
			select {
			case <-ctx.Done():
			case <-j.wake:
			case <-timer.C:
			}
		}
		if re, ok := errors.AsType[*readError](err); ok {
			if !errors.Is(err, errChanged) {
				b.env.Logger.Warn("file cannot be read, trying again", "file", j.name, "error", re.err)
			}
			b.abandon(j)
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return fault.Wrap(err, "hand over file %q", j.name)
		}
	}
	return nil
}

const (
	stepRead time.Duration = -1 // take the next event from the file
	stepEnd  time.Duration = -2 // all are settled
)

// errChanged: the file is not what it was when it was begun.
var errChanged = errors.New("file has changed")

// readError is about one file and no reason to stop reading the others.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// choose returns an event to hand over again, or else what to do: read, end,
// or wait for the time it returns.
func (b *binding) choose(j *job) (*item, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, wait := time.Now(), idlePause
	var first *item
	for _, it := range j.items {
		if it.state != waiting {
			continue
		}
		if pause := it.due.Sub(now); pause > 0 {
			wait = min(wait, pause)
		} else if first == nil || it.offset < first.offset {
			first = it
		}
	}
	bound := ahead
	if b.options.OrderBy == "none" {
		bound = aheadNone
	}
	switch {
	case first != nil:
		first.state = flying
		return first, 0
	case !j.read && len(j.items) < bound:
		return nil, stepRead
	case j.read && len(j.items) == 0:
		return nil, stepEnd
	}
	return nil, wait
}

// readWhole makes one event of the file.
func (b *binding) readWhole(ctx context.Context, emit cloudevents.EmitFunc, j *job) error {
	it := &item{end: j.identity.size}
	b.mu.Lock()
	j.items[0], j.next, j.read = it, j.identity.size, true
	b.mu.Unlock()
	return b.again(ctx, emit, j, it)
}

// readLine takes the next line and hands it over.
func (b *binding) readLine(ctx context.Context, emit cloudevents.EmitFunc, j *job, in *bufio.Reader) error {
	raw, err := nextLine(in, int(b.options.MaxLineSize))
	it := b.took(j, raw, err)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errLineTooLong):
		return nil
	case err != nil:
		return &readError{err}
	case it == nil:
		return nil
	}
	if err := b.bytes.Acquire(ctx, weight(it)); err != nil {
		b.back(it)
		return err
	}
	return b.send(ctx, emit, j, it, trimEnd(raw))
}

// took notes what reading a line came to. It returns the event to hand over,
// nil when there is none.
func (b *binding) took(j *job, raw []byte, err error) *item {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF):
		j.read, j.dirty = true, true
		return nil
	case errors.Is(err, errLineTooLong):
		j.fail(fmt.Sprintf("line %d at byte %d is longer than maxLineSize, %d bytes", j.line+1, j.next, b.options.MaxLineSize))
		return nil
	case err != nil:
		return nil
	}
	it := &item{offset: j.next, end: j.next + int64(len(raw)), line: j.line + 1, sum: j.sum}
	j.prefix.Write(raw)
	j.next, j.line, j.sum = it.end, it.line, j.prefix.Sum(nil)
	if len(trimEnd(raw)) == 0 {
		return nil
	}
	j.items[it.offset] = it
	return it
}

// again hands over an event whose data must be read (once more).
func (b *binding) again(ctx context.Context, emit cloudevents.EmitFunc, j *job, it *item) error {
	if err := b.bytes.Acquire(ctx, weight(it)); err != nil {
		b.back(it)
		return err
	}
	data, err := j.data(it)
	if err != nil {
		b.bytes.Release(weight(it))
		b.back(it)
		return &readError{err}
	}
	if b.options.Mode == lines {
		data = trimEnd(data)
	}
	return b.send(ctx, emit, j, it, data)
}

// data reads the bytes of an event. For a whole file it checks that nobody
// changed it meanwhile.
func (j *job) data(it *item) ([]byte, error) {
	data := make([]byte, it.end-it.offset)
	_, err := io.ReadFull(io.NewSectionReader(j.file, it.offset, int64(len(data))), data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errChanged
	}
	if err != nil || it.line > 0 {
		return data, err
	}
	info, err := j.file.Stat()
	if err == nil && identify(info) != j.identity {
		err = errChanged
	}
	return data, err
}

// weight is what an event takes of maxBytes.
func weight(it *item) int64 { return min(max(it.end-it.offset, 1), maxBytes) }

// back makes an event that was not handed over due again.
func (b *binding) back(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it.state, it.due = waiting, time.Time{}
}

// abandon lets go of a file that changed while it was read. The next look finds
// it as a new one, to go on behind what is noted if it still begins with that.
// Outcomes still to come change nothing.
func (b *binding) abandon(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.jobs, j.name)
	j.close()
}

// settle ends one handing over; it may be called after Read has returned.
func (b *binding) settle(j *job, it *item, o cloudevents.Outcome) {
	b.bytes.Release(weight(it))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	switch o.Verdict {
	case cloudevents.Retry:
		pause := o.After
		if pause <= 0 {
			pause = min(firstPause<<min(it.attempt, 6), maxPause)
		}
		it.attempt++
		it.state, it.due = waiting, time.Now().Add(pause)
	case cloudevents.Leave:
		it.state = left
	default:
		delete(j.items, it.offset)
		j.dirty = true
		ring(b.wakeFinish)
	}
	ring(j.wake)
}
