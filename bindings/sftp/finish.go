package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/pkg/sftp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	retryPause = time.Second
	// partTime is for giving back what is not done when the server does not
	// answer; others find it by and by.
	partTime = 10 * time.Second
)

// settle ends one handing over; it may be called after Read has returned.
func (b *inbox) settle(j *job, o cloudevents.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	j.faults = 0
	switch o.Verdict {
	case cloudevents.Retry:
		pause := o.After
		if pause <= 0 {
			pause = min(firstPause<<min(j.attempt, 6), maxPause)
		}
		j.attempt++
		j.state, j.due = waiting, time.Now().Add(pause)
		ring(b.wake)
	case cloudevents.Leave:
		j.state = left
	default:
		j.state = done
		ring(b.finish)
	}
}

// giveUp sets a file aside that cannot be delivered.
func (b *inbox) giveUp(j *job, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j.state, j.failed = done, why
	ring(b.finish)
}

// forget lets go of a file; the caller holds mu.
func (b *inbox) forget(j *job) {
	if b.jobs[j.name] == j {
		delete(b.jobs, j.name)
	}
	ring(b.wake)
}

// finishLoop puts files away that are done, until ctx ends.
func (b *inbox) finishLoop(ctx context.Context) {
	timer := time.NewTimer(idlePause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.finish:
		case <-timer.C:
		}
		timer.Reset(b.putAway(ctx))
	}
}

// putAway moves or deletes the files that are done. It returns when to try
// again.
func (b *inbox) putAway(ctx context.Context) time.Duration {
	pause := idlePause
	for _, j := range b.those(done) {
		if ctx.Err() != nil {
			return pause
		}
		err := act(ctx, b, func(s *sftp.Client) error { return b.put(s, j) })
		switch {
		case err == nil && j.failed != "":
			b.env.Logger.Error("file is given up", "file", j.name, "reason", j.failed, "now_in", b.options.FailedDir)
		case err != nil && fault.KindOf(err) == fault.NotFound:
			b.env.Logger.Warn("file was delivered and is gone, taken over by another process or removed", "file", j.name)
		case err != nil:
			if !j.stuck && ctx.Err() == nil {
				b.env.Logger.Error("file is delivered and cannot be put away, trying again", "file", j.name, "error", err)
			}
			j.stuck = true // nobody else looks at it
			pause = retryPause
			continue
		}
		b.mu.Lock()
		b.forget(j)
		b.mu.Unlock()
	}
	return pause
}

// those returns the files in a state.
func (b *inbox) those(st state) (js []*job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.state == st {
			js = append(js, j)
		}
	}
	return js
}

// put does with one file what the options say.
func (b *inbox) put(s *sftp.Client, j *job) error {
	dir := b.options.DoneDir
	switch {
	case j.failed != "":
		dir = b.options.FailedDir
	case b.options.After == del:
		return s.Remove(j.claim)
	}
	return b.moveTo(s, j, dir)
}

// moveTo moves a file under a name that is free there.
func (b *inbox) moveTo(s *sftp.Client, j *job, dir string) error {
	dir = path.Join(b.folder, dir)
	stamp := time.Unix(j.identity.modTime, 0).UTC().Format("20060102T150405Z")
	for n := range 1000 {
		to := path.Join(dir, j.name)
		if n > 0 {
			to = fmt.Sprintf("%s.%s-%d", to, stamp, n)
		}
		err := renameFree(s, j.claim, to)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case errors.Is(err, fs.ErrNotExist) && n == 0: // of the two, the folder may be what is missing
			if err := makeFolder(s, b.root, dir); err != nil {
				return err
			}
			if err := renameFree(s, j.claim, to); !errors.Is(err, fs.ErrExist) {
				return err
			}
			continue
		}
		return err
	}
	return fault.New(fault.Conflict, "move to %s: the name is taken a thousand times", dir)
}

// renameFree renames a file unless there is one of the new name: then the error
// is fs.ErrExist. Not every server's rename refuses that by itself.
func renameFree(s *sftp.Client, from, to string) error {
	if _, err := s.Lstat(to); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := s.Rename(from, to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if _, e := s.Lstat(to); e == nil {
			return fs.ErrExist // somebody was faster
		}
	}
	return err
}

// Close stops a Read that still runs, puts away what is done and gives the
// other files back, so that others find them at once.
func (b *inbox) Close(ctx context.Context) error {
	b.mu.Lock()
	twice := b.closed
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	if twice {
		return nil
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	b.stop()
	b.work.Wait()
	parting, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	b.part(parting)
	return b.output.Close(ctx)
}

// part gives back the files of this process. What cannot be given back, because
// another has its name or the server does not answer, others take over.
func (b *inbox) part(ctx context.Context) {
	b.putAway(ctx)
	own := b.owned()
	if own == "" {
		return
	}
	var all []error
	for _, st := range []state{waiting, flying, left} {
		for _, j := range b.those(st) {
			err := act(ctx, b, func(s *sftp.Client) error {
				return renameFree(s, j.claim, path.Join(b.folder, j.name))
			})
			if err != nil && fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Conflict {
				all = append(all, err)
			}
		}
	}
	if err := act(ctx, b, func(s *sftp.Client) error { return dropFolder(s, own) }); err != nil {
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		b.env.Logger.Warn("files cannot be given back; they are taken over after claimTimeout", "error", err)
	}
}
