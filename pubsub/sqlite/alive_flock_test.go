//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package sqlite

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestAliveLockIsFreeWhileAChildHasTheFile duplicates the file, as the start of
// a program does until the program runs.
func TestAliveLockIsFreeWhileAChildHasTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, alone, err := lockAlive(path)
	if err != nil || !alone {
		t.Fatal(alone, err)
	}
	child, err := syscall.Dup(int(l.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	again, alone, err := lockAlive(path)
	if err != nil || !alone {
		t.Fatalf("alone is %v after the other one closed: %v", alone, err)
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
}
