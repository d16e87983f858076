package file

import (
	"fmt"
	"io/fs"
)

// identity tells one state of one file from another.
type identity struct {
	device, inode uint64 // zero where the system has none
	size, modTime int64  // modTime in nanoseconds
}

func identify(info fs.FileInfo) identity {
	device, inode := inode(info)
	return identity{device, inode, info.Size(), info.ModTime().UnixNano()}
}

// String is what the ledger keeps.
func (i identity) String() string {
	return fmt.Sprintf("%x-%x-%x-%x", i.device, i.inode, i.size, i.modTime)
}

func parseIdentity(text string) (i identity, ok bool) {
	_, err := fmt.Sscanf(text, "%x-%x-%x-%x", &i.device, &i.inode, &i.size, &i.modTime)
	return i, err == nil
}

// sameFile tells whether it is the same file, perhaps with other contents.
func (i identity) sameFile(other identity) bool {
	return i.device == other.device && i.inode == other.inode
}
