//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package file

import (
	"os"

	"github.com/penstock-io/penstock/fault"
)

// takeFolder holds nobody off on systems without locks on folders.
func takeFolder(path string) (*os.File, error) {
	f, err := os.Open(path)
	return f, fault.Wrap(err, "open folder")
}

// freeFolder closes the file.
func freeFolder(f *os.File) error { return f.Close() }
