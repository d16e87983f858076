package jwks

import (
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/penstock-io/penstock/crypto/keys"
	"github.com/penstock-io/penstock/fault"
)

// file is a set that stands in a file.
type file struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex  // guards what follows
	stamp os.FileInfo // of the last reading, good or bad; nil when the file was not there
	set   keys.Set
}

func openFile(log *slog.Logger, path string) (*file, error) {
	f := &file{path: path, log: log}
	var err error
	if f.stamp, f.set, err = f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *file) current() keys.Set {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && same(info, f.stamp) {
		return f.set
	}
	stamp, set, err := f.read()
	if err != nil {
		if stamp != nil || f.stamp != nil { // not again for a file that is still missing
			f.log.Warn("key set changed and cannot be read, going on with what was read before", "error", err)
		}
		f.stamp = stamp
		return f.set
	}
	f.stamp, f.set = stamp, set
	return set
}

// same tells whether nothing was written between the two.
func same(a, b os.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// read reads the whole file. The FileInfo is that of the file read, also when
// its content is wrong, and nil when it could not be opened.
func (f *file) read() (os.FileInfo, keys.Set, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return nil, nil, fault.Wrap(err, "open key set")
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, nil, fault.Wrap(err, "stat key set")
	}
	if !info.Mode().IsRegular() {
		return info, nil, fault.New(fault.Invalid, "read key set %s: not a file", f.path)
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSize+1))
	if err != nil {
		return info, nil, fault.Wrap(err, "read key set")
	}
	if len(data) > maxSize {
		return info, nil, fault.New(fault.Invalid, "read key set %s: more than %d bytes", f.path, maxSize)
	}
	set, err := keys.ParseSet(data)
	return info, set, fault.Wrap(err, "read %s", f.path)
}

func (f *file) close() {}
