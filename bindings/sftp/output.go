package sftp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/sftp"
	"github.com/penstock-io/penstock/fault"
)

const (
	opCreate = "create"
	opGet    = "get"
	opDelete = "delete"
	opList   = "list"

	maxName  = 255  // bytes of one part of a name
	maxPath  = 1024 // bytes of the whole name
	maxList  = 100_000
	tempMark = ".penstock-tmp-" // begins the name of a file that is being written

	// invokeTimeout is how long an invocation may take whose caller does not say.
	invokeTimeout = 5 * time.Minute

	posixRename = "posix-rename@openssh.com"
	fsync       = "fsync@openssh.com"
)

func operations() []string { return []string{opCreate, opGet, opDelete, opList} }

// output is the driver of a binding without an inbox.
type output struct {
	client   *client.Client
	root     string // absolute, without symbolic links
	fileName string
	maxSize  int64
}

// Operations returns create, get, delete and list.
func (b *output) Operations() []string { return operations() }

// Close implements bindings.Driver.
func (b *output) Close(ctx context.Context) error {
	return fault.Wrap(b.client.Close(ctx), "close connection")
}

// Invoke implements bindings.Invoker.
func (b *output) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(err, "use folder")
	}
	do, ok := map[string]func(*sftp.Client, string, []byte) (*bindings.Response, error){
		opCreate: b.create, opGet: b.get, opDelete: b.delete, opList: b.list,
	}[r.Operation]
	if !ok {
		return nil, fault.New(fault.Invalid, "use folder: operation %.40q is not supported; use one of %s", r.Operation, strings.Join(operations(), ", "))
	}
	name, err := b.name(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	resp, err := client.Do(ctx, b.client, func(s *sftp.Client) (*bindings.Response, error) { return do(s, name, r.Data) })
	if err != nil {
		return nil, fault.Wrap(err, "%s %q", r.Operation, name)
	}
	return resp, nil
}

// name returns what a request is about, checked.
func (b *output) name(r *bindings.Request) (string, error) {
	name := r.Metadata["fileName"]
	switch {
	case r.Metadata["rootPath"] != "":
		return "", fault.New(fault.Invalid, "check request: metadata rootPath is not taken; name the folder in fileName, within the rootPath of the component")
	case name == "" && r.Operation == opList:
		return ".", nil
	case name == "" && b.fileName != "":
		name = b.fileName
	case name == "" && r.Operation == opCreate:
		name = strings.ToLower(rand.Text())
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	name = path.Clean(name)
	if name == "." && r.Operation != opList {
		return "", fault.New(fault.Invalid, "check file name: it is the folder itself")
	}
	return name, nil
}

// checkName refuses what cannot or must not be below the root.
func checkName(name string) error {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "check file name %q: %s", name[:min(len(name), 100)], why)
	}
	switch {
	case name == "":
		return bad("metadata fileName is missing")
	case len(name) > maxPath:
		return bad(fmt.Sprintf("longer than %d bytes", maxPath))
	case strings.ContainsRune(name, 0):
		return bad("has a zero byte")
	case path.IsAbs(name):
		return bad("it must be a path within rootPath")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return bad("it must not climb up")
		case len(part) > maxName:
			return bad(fmt.Sprintf("a part is longer than %d bytes", maxName))
		case strings.HasPrefix(part, tempMark):
			return bad("names that begin with " + tempMark + " are for files being written")
		}
	}
	return nil
}

// inside checks that a path is within root where the server says it really is.
func inside(s *sftp.Client, root, full string) error {
	if full == root {
		return nil
	}
	real, err := s.RealPath(full)
	if err != nil {
		return err
	}
	if real != root && !strings.HasPrefix(real, strings.TrimSuffix(root, "/")+"/") {
		return fault.New(fault.Invalid, "a symbolic link leads out of rootPath")
	}
	return nil
}

// makeFolder makes a folder within root, and those on the way to it.
func makeFolder(s *sftp.Client, root, dir string) error {
	if dir == root {
		return nil
	}
	info, err := s.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fault.New(fault.Invalid, "%q is a file", path.Base(dir))
	case err == nil:
		return inside(s, root, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := makeFolder(s, root, path.Dir(dir)); err != nil {
		return err
	}
	if err := s.Mkdir(dir); err != nil {
		if info, e := s.Stat(dir); e == nil && info.IsDir() {
			return nil // somebody else made it
		}
		return err
	}
	return nil
}

func (b *output) create(s *sftp.Client, name string, data []byte) (*bindings.Response, error) {
	full := path.Join(b.root, name)
	dir := path.Dir(full)
	if err := makeFolder(s, b.root, dir); err != nil {
		return nil, err
	}
	temp := path.Join(dir, tempMark+strings.ToLower(rand.Text()))
	err := write(s, temp, data)
	if err == nil {
		err = replace(s, temp, full)
	}
	if err != nil {
		_ = s.Remove(temp) // the first error says more
		return nil, err
	}
	base := path.Base(name)
	answer, err := json.Marshal(map[string]string{"fileName": base})
	if err != nil {
		return nil, fault.Wrap(err, "encode answer")
	}
	return &bindings.Response{Data: answer, Metadata: map[string]string{"fileName": base}}, nil
}

func write(s *sftp.Client, name string, data []byte) error {
	f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if _, ok := s.HasExtension(fsync); ok && err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// replace gives a file its name, which another may have.
func replace(s *sftp.Client, from, to string) error {
	var err error
	if _, ok := s.HasExtension(posixRename); ok {
		err = s.PosixRename(from, to)
	} else if err = s.Rename(from, to); err != nil {
		if e := s.Remove(to); e == nil {
			err = s.Rename(from, to)
		}
	}
	if err != nil {
		if info, e := s.Lstat(to); e == nil && info.IsDir() {
			return fault.New(fault.Invalid, "there is a folder of that name")
		}
	}
	return err
}

func (b *output) get(s *sftp.Client, name string, _ []byte) (*bindings.Response, error) {
	full := path.Join(b.root, name)
	if err := inside(s, b.root, full); err != nil {
		return nil, err
	}
	info, err := s.Stat(full) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "it is no file")
	case info.Size() > b.maxSize:
		return nil, tooLarge(info.Size(), b.maxSize)
	}
	f, err := s.Open(full)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f, info.Size(), b.maxSize)
	if err != nil {
		return nil, err
	}
	return &bindings.Response{Data: data}, nil
}

func tooLarge(size, limit int64) error {
	return fault.New(fault.Invalid, "it has %d bytes, more than maxFileSize, %d", size, limit)
}

// readAll reads a file that had size bytes a moment ago.
func readAll(f *sftp.File, size, limit int64) ([]byte, error) {
	data := make([]byte, size)
	n, err := io.ReadFull(f, data)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return data[:n], nil // it became shorter
	case err != nil:
		return nil, err
	}
	more, err := io.ReadAll(io.LimitReader(f, limit+1-size))
	if err != nil {
		return nil, err
	}
	if size += int64(len(more)); size > limit {
		return nil, tooLarge(size, limit)
	}
	return append(data, more...), nil
}

func (b *output) delete(s *sftp.Client, name string, _ []byte) (*bindings.Response, error) {
	full := path.Join(b.root, name)
	if err := inside(s, b.root, path.Dir(full)); err != nil {
		return nil, err
	}
	return nil, s.Remove(full)
}

// entry is one name of a list, as Dapr tells it.
type entry struct {
	FileName    string `json:"fileName"`
	IsDirectory bool   `json:"isDirectory"`
}

func (b *output) list(s *sftp.Client, name string, _ []byte) (*bindings.Response, error) {
	full := path.Join(b.root, name)
	if err := inside(s, b.root, full); err != nil {
		return nil, err
	}
	infos, err := s.ReadDir(full)
	if err != nil {
		if info, e := s.Stat(full); e == nil && !info.IsDir() {
			return nil, fault.New(fault.Invalid, "it is not a folder")
		}
		return nil, err
	}
	if len(infos) > maxList {
		return nil, fault.New(fault.Invalid, "it has more than %d names", maxList)
	}
	entries := make([]entry, 0, len(infos))
	for _, info := range infos {
		if !strings.HasPrefix(info.Name(), tempMark) {
			entries = append(entries, entry{info.Name(), info.IsDir()})
		}
	}
	answer, err := json.Marshal(entries)
	if err != nil {
		return nil, fault.Wrap(err, "encode list")
	}
	return &bindings.Response{Data: answer}, nil
}
