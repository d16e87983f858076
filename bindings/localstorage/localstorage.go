// Package localstorage is the output binding that keeps files in one folder.
//
// Configure it as bindings.localstorage with rootPath. Operations are create,
// get, delete and list; the request's metadata fileName names a file, with
// slashes for folders below the root.
//
// It promises that nothing outside the folder is read, written or listed,
// whatever the name or the symbolic links in the folder say, and that create
// returns only after the file is on the disk under its name: a reader sees the
// old file or the whole new one.
package localstorage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	opCreate = "create"
	opGet    = "get"
	opList   = "list"
	opDelete = "delete"

	maxName  = 255  // bytes of one part of a name
	maxPath  = 1024 // bytes of the whole name
	maxList  = 100_000
	tempMark = ".penstock-tmp-" // begins the name of a file that is being written
)

// Component is listed in package all.
var Component = bindings.Define("localstorage", component.About{
	Summary: "Keeps files in a folder of this machine",
	Ack:     "create returns when the file is on the disk, under its whole name and synced; delete when the name is gone.",
	Order:   "None between calls; of two that write one name at once, one file is kept whole.",
	Limits:  "Names of 1024 bytes with parts of 255, files of maxFileSize, lists of 100000 names.",
	Scale:   "Several processes may share the folder; the last writer of a name wins.",
	Dapr: "list gives names relative to rootPath, fit for get and delete; a name that leads out of the folder is an error " +
		"instead of being bent; data is written as it comes, a JSON string keeps its quotes.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: archive
spec:
  type: bindings.localstorage
  version: v1
  metadata:
    - name: rootPath
      value: ./archive
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{opCreate, opGet, opList, opDelete} }

type options struct {
	RootPath    string            `meta:"rootPath,required" doc:"Folder to keep the files in; made when it does not exist." example:"./archive"`
	MaxFileSize component.Size    `meta:"maxFileSize" doc:"Largest file that get returns." default:"100Mi"`
	FileName    component.Ignored `meta:"fileName" doc:"The name of a file is given with each request, or made up by create."`
}

// Check refuses a limit that lets nothing through.
func (o options) Check() error {
	if o.MaxFileSize < 1 {
		return component.OptionErrorf("maxFileSize", "must be at least 1")
	}
	return nil
}

type binding struct {
	root    *os.Root
	maxSize int64
}

func open(_ context.Context, _ component.Env, o options) (bindings.Driver, error) {
	if err := os.MkdirAll(o.RootPath, 0o755); err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	root, err := os.OpenRoot(o.RootPath)
	if err != nil {
		return nil, fault.Wrap(err, "open folder")
	}
	return &binding{root: root, maxSize: int64(o.MaxFileSize)}, nil
}

// Operations returns create, get, list and delete.
func (b *binding) Operations() []string { return operations() }

// Invoke carries out one operation.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(err, "use folder")
	}
	name := r.Metadata["fileName"]
	switch {
	case name == "" && r.Operation == opCreate:
		name = cloudevents.NewID()
	case name == "" && r.Operation == opList:
		name = "."
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	switch r.Operation {
	case opCreate:
		return b.create(name, r.Data)
	case opGet:
		return b.get(name)
	case opDelete:
		return nil, explain(b.delete(name), "delete file %q", name)
	case opList:
		return b.list(ctx, name)
	}
	return nil, fault.New(fault.Invalid, "use folder: operation %q is not supported; use one of %s", r.Operation, strings.Join(operations(), ", "))
}

// Close frees the folder.
func (b *binding) Close(context.Context) error {
	return fault.Wrap(b.root.Close(), "close folder")
}

// checkName refuses what cannot or must not be a file below the root.
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
	case !filepath.IsLocal(name):
		return bad("it must be a path within the folder")
	}
	for part := range strings.SplitSeq(filepath.ToSlash(name), "/") {
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

// explain gives the errors of the file system kinds that fit a caller.
func explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return fault.Wrap(err, format, args...)
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	} else if le, ok := errors.AsType[*os.LinkError](err); ok {
		err = le.Err
	}
	kind := fault.KindOf(err)
	switch {
	case errors.Is(err, fs.ErrClosed):
		kind = fault.Unavailable
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EMFILE):
		kind = fault.Exhausted
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ELOOP):
		kind = fault.Invalid
	case strings.HasSuffix(err.Error(), "path escapes from parent"): // os keeps the error to itself
		kind = fault.Invalid
	}
	return fault.Wrap(fault.As(kind, err), format, args...)
}

func (b *binding) create(name string, data []byte) (*bindings.Response, error) {
	if err := b.write(name, data); err != nil {
		return nil, explain(err, "create file %q", name)
	}
	answer, err := json.Marshal(map[string]string{"fileName": filepath.ToSlash(filepath.Clean(name))})
	if err != nil {
		return nil, fault.Wrap(err, "encode answer")
	}
	return &bindings.Response{Data: answer}, nil
}

// write puts data under a temporary name, onto the disk, and then in place.
func (b *binding) write(name string, data []byte) error {
	if info, err := b.root.Lstat(name); err == nil && info.IsDir() {
		return fault.New(fault.Invalid, "there is a folder of that name")
	}
	dir := filepath.Dir(name)
	made, err := b.makeFolder(dir)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, tempMark+cloudevents.NewID())
	if err := b.writeTemp(temp, data); err != nil {
		return cmp.Or(err, b.root.Remove(temp))
	}
	if err := b.root.Rename(temp, name); err != nil {
		_ = b.root.Remove(temp) // the first error says more
		return err
	}
	for ; made && dir != "."; dir = filepath.Dir(dir) {
		if err := b.syncFolder(dir); err != nil {
			return err
		}
	}
	return b.syncFolder(dir)
}

func (b *binding) makeFolder(dir string) (made bool, err error) {
	if _, err := b.root.Stat(dir); err == nil {
		return false, nil
	}
	return true, b.root.MkdirAll(dir, 0o755)
}

func (b *binding) writeTemp(name string, data []byte) error {
	f, err := b.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return cmp.Or(err, f.Close())
}

// syncFolder makes a new name in the folder last.
func (b *binding) syncFolder(dir string) error {
	f, err := b.root.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // the file system has no such thing
	}
	return cmp.Or(err, f.Close())
}

func (b *binding) get(name string) (*bindings.Response, error) {
	data, err := b.read(name)
	if err != nil {
		return nil, explain(err, "read file %q", name)
	}
	return &bindings.Response{Data: data}, nil
}

func (b *binding) read(name string) ([]byte, error) {
	info, err := b.root.Stat(name) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "not a file")
	}
	f, err := b.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, b.maxSize+1))
	if err == nil && int64(len(data)) > b.maxSize {
		err = fault.New(fault.Invalid, "longer than maxFileSize, %d bytes", b.maxSize)
	}
	return data, err
}

func (b *binding) delete(name string) error {
	info, err := b.root.Lstat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fault.New(fault.Invalid, "it is a folder")
	}
	if err := b.root.Remove(name); err != nil {
		return err
	}
	return b.syncFolder(filepath.Dir(name))
}

// list answers with a JSON array of the files in the folder called name and
// below, sorted.
func (b *binding) list(ctx context.Context, name string) (*bindings.Response, error) {
	names := []string{}
	err := fs.WalkDir(b.root.FS(), path.Clean(filepath.ToSlash(name)), func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist) && len(names) > 0:
			return nil // deleted while we look
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir():
			return nil
		case p == path.Clean(filepath.ToSlash(name)):
			return fault.New(fault.Invalid, "it is not a folder")
		case strings.HasPrefix(d.Name(), tempMark):
			return nil
		case len(names) == maxList:
			return fault.New(fault.Invalid, "more than %d files; list the folders in it one by one", maxList)
		}
		names = append(names, p)
		return nil
	})
	if err != nil {
		return nil, explain(err, "list folder %q", name)
	}
	answer, err := json.Marshal(names)
	if err != nil {
		return nil, fault.Wrap(err, "encode list")
	}
	return &bindings.Response{Data: answer}, nil
}
