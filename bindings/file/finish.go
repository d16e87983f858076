package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/fault"
)

const (
	passLimit  = time.Minute // one pass of the finisher
	retryPause = time.Second
)

// progress is how far one file is, as seen at one moment.
type progress struct {
	job      *job
	position int64
	line     int64
	sum      []byte
	complete bool
	failed   string
}

// finishLoop notes outcomes down and puts finished files away, until Close. It
// writes what came meanwhile in one go.
func (b *binding) finishLoop(ctx context.Context) {
	defer close(b.stopped)
	timer := time.NewTimer(b.options.Interval)
	defer timer.Stop()
	for {
		last := false
		select {
		case <-b.stop:
			last = true
		case <-b.wakeFinish:
		case <-timer.C:
		}
		pause := b.options.Interval
		if err := b.pass(ctx); err != nil {
			pause = retryPause
			b.env.Logger.Error("progress of files cannot be noted, trying again", "error", err)
		}
		if last {
			return
		}
		timer.Reset(pause)
	}
}

// pass notes down what is new: first the progress, then it moves and deletes
// files, then it drops the records nobody needs any more. A crash between two
// of these steps loses nothing and delivers nothing twice.
func (b *binding) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	news := b.news()
	var save []record
	for _, p := range news {
		if r, ok := p.record(); ok {
			save = append(save, r)
		}
	}
	if err := b.ledger.write(ctx, save, nil); err != nil {
		b.dirty(news)
		return err
	}
	drop, over := b.putAway(news)
	if err := b.ledger.write(ctx, nil, drop); err != nil {
		b.dirty(over)
		return err
	}
	b.mu.Lock()
	for _, p := range over {
		if b.jobs[p.job.name] == p.job {
			delete(b.jobs, p.job.name)
		}
		p.job.close()
	}
	b.mu.Unlock()
	if len(over) > 0 {
		ring(b.wakeScan)
	}
	return nil
}

// news returns the progress of every file that has made some.
func (b *binding) news() (all []progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if !j.dirty {
			continue
		}
		j.dirty = false
		p := progress{job: j, position: j.next, line: j.line, sum: j.sum, complete: j.read && len(j.items) == 0, failed: j.failed}
		for _, it := range j.items {
			if it.offset < p.position {
				p.position, p.line, p.sum = it.offset, it.line-1, it.sum
			}
		}
		all = append(all, p)
	}
	return all
}

func (b *binding) dirty(ps []progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range ps {
		p.job.dirty = true
	}
}

// record returns what to remember; not ok when there is nothing new.
func (p progress) record() (r record, ok bool) {
	j := p.job
	r = record{
		name: j.name, identity: j.identity, generation: j.generation, state: stateReading,
		position: p.position, line: p.line, prefix: p.sum,
	}
	switch {
	case j.noted:
		return r, false
	case p.complete && p.failed != "":
		r.state = stateFailed
	case p.complete:
		r.state = stateDone
	}
	return r, p.complete || p.sum != nil && p.position > 0
}

// putAway moves or deletes the files that are complete. It returns which
// records to drop and which files are over; the others are tried again.
func (b *binding) putAway(ps []progress) (drop []string, over []progress) {
	var moved []progress
	for _, p := range ps {
		if !p.complete {
			continue
		}
		p.job.noted = true
		gone, err := b.put(p)
		if err != nil {
			b.stuck(p, err)
			continue
		}
		over = append(over, p)
		if gone {
			moved = append(moved, p)
		}
	}
	if len(moved) == 0 {
		return nil, over
	}
	if err := errors.Join(b.syncFolder(b.options.DoneDir), b.syncFolder(b.options.FailedDir), b.syncFolder(".")); err != nil {
		b.env.Logger.Warn("folder cannot be synced, moved files may come again after a power cut", "error", err)
		return nil, over
	}
	for _, p := range moved {
		drop = append(drop, p.job.name)
	}
	return drop, over
}

// stuck keeps a file that cannot be moved or deleted for the next pass.
func (b *binding) stuck(p progress, err error) {
	if !p.job.stuck {
		b.env.Logger.Error("file is delivered and cannot be put away, trying again", "file", p.job.name, "error", err)
	}
	p.job.stuck = true
	b.dirty([]progress{p})
}

// put does what the options say about one file that is complete, unless it is
// another file by now. Gone means that the name is free.
func (b *binding) put(p progress) (gone bool, err error) {
	j := p.job
	info, err := b.root.Lstat(j.name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if identify(info) != j.identity {
		return false, nil // what is new in it is read next
	}
	switch {
	case p.failed != "":
		return b.setAside(p)
	case b.options.After == keep:
		return false, nil
	case b.options.After == del:
		return true, b.root.Remove(j.name)
	}
	return true, b.moveTo(b.options.DoneDir, j)
}

// setAside puts a file away that is given up, and says so.
func (b *binding) setAside(p progress) (gone bool, err error) {
	where := b.options.FailedDir
	if b.options.After == keep {
		where = "."
	} else if err := b.moveTo(where, p.job); err != nil {
		return false, err
	}
	b.env.Logger.Error("file is given up", "file", p.job.name, "reason", p.failed, "now_in", where, "bytes_delivered", p.position)
	return where != ".", nil
}

// moveTo moves a file under a name that is free there.
func (b *binding) moveTo(dir string, j *job) error {
	if err := b.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	stamp := time.Unix(0, j.identity.modTime).UTC().Format("20060102T150405.000000000Z")
	for n := range 1000 {
		name := j.name
		if n > 0 {
			name = fmt.Sprintf("%s.%s-%d", j.name, stamp, n)
		}
		name = filepath.Join(dir, name)
		if _, err := b.root.Lstat(name); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return b.root.Rename(j.name, name)
	}
	return fault.New(fault.Conflict, "move to %s: the name is taken a thousand times", dir)
}

// syncFolder makes moves last; a folder that does not exist needs none.
func (b *binding) syncFolder(dir string) error {
	f, err := b.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // the file system has no such thing
	}
	return cmp.Or(err, f.Close())
}
