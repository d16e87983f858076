package sqlite

import (
	"encoding/binary"
	"os"
	"path/filepath"
)

const pageSize = 4096

// fresh is a database without tables as SQLite's file format describes it
// (sqlite.org/fileformat.html): one page, the log on, incremental vacuum.
func fresh() []byte {
	page := make([]byte, pageSize)
	copy(page, "SQLite format 3\x00")
	put := binary.BigEndian.PutUint32
	binary.BigEndian.PutUint16(page[16:], pageSize)
	page[18], page[19] = 2, 2                        // written and read through the log
	page[21], page[22], page[23] = 64, 32, 32        // as they must be
	put(page[24:], 1)                                // change counter
	put(page[28:], 1)                                // pages
	put(page[52:], 1)                                // the largest root page: vacuum is possible
	put(page[64:], 1)                                // and incremental
	put(page[92:], 1)                                // change counter for which the next holds
	put(page[96:], 3_046_000)                        // version of SQLite that wrote it
	page[100] = 13                                   // a table's leaf
	binary.BigEndian.PutUint16(page[105:], pageSize) // with nothing in it
	return page
}

// create puts a fresh database at path unless something is there: written and
// flushed under another name first, so nobody ever sees half of it. SQLite
// would get to the same page in two transactions that wait for the disk eight
// times. The folder is flushed with the first commit, before anything is
// promised. What goes wrong here is left to SQLite, which creates the file
// when there is none and says why it cannot.
func create(path string) {
	if _, err := os.Lstat(path); err == nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.Write(fresh())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil && cerr == nil {
		// A file that came meanwhile stays: a link never replaces.
		_ = os.Link(f.Name(), path)
	}
}
