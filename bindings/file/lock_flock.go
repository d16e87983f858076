//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package file

import (
	"errors"
	"os"
	"syscall"

	"github.com/penstock-io/penstock/fault"
)

// takeFolder makes this binding the only reader of the folder until freeFolder
// gets the file it returns. It holds against other processes and other bindings.
func takeFolder(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(err, "open folder")
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = f.Close() // nothing was written
		return nil, fault.New(fault.Unavailable, "read folder %s: another binding reads it", path)
	}
	return f, nil // a file system without locks has to do without
}

// freeFolder gives the folder free. Closing the file alone would not, for a
// moment, while this process starts a program: the child has all files until it
// runs the program, and with them the lock.
func freeFolder(f *os.File) error {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // a file system without locks has none; closing frees it anyway
	return f.Close()
}
