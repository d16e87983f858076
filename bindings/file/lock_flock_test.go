//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package file

import (
	"syscall"
	"testing"
)

// TestFreeFolderWhileAChildHasTheFile duplicates the file, as the start of a
// program does until the program runs.
func TestFreeFolderWhileAChildHasTheFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	f, err := takeFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	child, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := freeFolder(f); err != nil {
		t.Fatal(err)
	}
	again, err := takeFolder(path)
	if err != nil {
		t.Fatalf("the folder was not given free: %v", err)
	}
	if err := freeFolder(again); err != nil {
		t.Error(err)
	}
}
