//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package sqlite

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// aliveLock is a lock that every process using a file holds in common. The
// system frees it when a process dies, however it dies, so whoever gets it
// alone knows that all leases in the file are stale. It holds between
// containers on one machine too, where process ids mean nothing.
type aliveLock struct{ file *os.File }

// lockAlive takes the lock: alone is set, and the lock exclusive until share
// is called, when no other process has it.
func lockAlive(path string) (l *aliveLock, alone bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fault.Wrap(err, "create lock")
	}
	l = &aliveLock{f}
	for _, how := range []int{syscall.LOCK_EX, syscall.LOCK_SH} {
		err = l.try(how)
		if err == nil {
			return l, how == syscall.LOCK_EX, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close() // nothing was written
			return nil, false, fault.New(fault.Unavailable, "lock %s: %w", path, err)
		}
	}
	// Somebody else is alone for a moment; share waits for that.
	return l, false, nil
}

func (l *aliveLock) try(how int) error {
	for {
		err := syscall.Flock(int(l.file.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// share holds the lock together with others.
func (l *aliveLock) share(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := l.try(syscall.LOCK_SH)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fault.New(fault.Unavailable, "lock %s: %w", l.file.Name(), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "lock %s: another process keeps it: %w", l.file.Name(), ctx.Err())
		}
	}
}

// close frees the lock. Closing the file alone would not, for a moment, while
// this process starts a program: the child has all files until it runs the
// program, and with them the lock.
func (l *aliveLock) close() error {
	return errors.Join(l.try(syscall.LOCK_UN), l.file.Close())
}
