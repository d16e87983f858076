// Package localstorage is the crypto component whose keys are files of a folder.
//
// Configure it as crypto.dapr.localstorage with the path of the folder. The name
// of a key is the path of its file below the folder: PEM when it ends in .pem, a
// JWK when it ends in .json, else told by the content.
//
// It promises that a file is read anew for each document, so that a key that was
// replaced is used at once; and that no name leads out of the folder, neither by
// ".." nor by a symbolic link. A file may have 1 MiB.
package localstorage

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/crypto/keys"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = crypto.Define("dapr.localstorage", component.About{
	Summary: "Keys from the files of a folder",
	Limits:  "A file may have 1 MiB.",
	Scale:   "Every process reads the folder by itself.",
	Dapr:    "A symbolic link that leads out of the folder is not followed. The algorithms A128CBC-NOPAD, A192CBC-NOPAD and A256CBC-NOPAD work; Dapr lists them and refuses them with keys of this kind, so what they wrapped is for Penstock only.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: keys
spec:
  type: crypto.dapr.localstorage
  version: v1
  metadata:
    - name: path
      value: ./keys
`,
}, open)

type options struct {
	Path string `meta:"path,required" doc:"The folder with the keys." example:"./keys"`
}

const maxSize = 1 << 20

type folder struct{ root *os.Root }

func open(_ context.Context, _ component.Env, o options) (crypto.Driver, error) {
	root, err := os.OpenRoot(o.Path)
	if info, is := os.Stat(o.Path); err != nil && is == nil && !info.IsDir() {
		return nil, fault.New(fault.Invalid, "open folder of keys: %s is not a folder", o.Path)
	}
	if err != nil {
		return nil, fault.Wrap(err, "open folder of keys")
	}
	return &folder{root}, nil
}

// WrapKey wraps a file key with the key of a file.
func (f *folder) WrapKey(_ context.Context, name string, a enc.Algorithm, fileKey []byte) ([]byte, error) {
	k, err := f.key(name)
	if err != nil {
		return nil, err
	}
	return k.Wrap(a, fileKey)
}

// UnwrapKey unwraps a file key with the key of a file.
func (f *folder) UnwrapKey(_ context.Context, name string, a enc.Algorithm, wrapped []byte) ([]byte, error) {
	k, err := f.key(name)
	if err != nil {
		return nil, err
	}
	return k.Unwrap(a, wrapped)
}

// Close lets go of the folder.
func (f *folder) Close(context.Context) error {
	if err := f.root.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fault.Wrap(err, "close folder of keys")
	}
	return nil
}

// key reads a key. A name that no file can have is no different from one that
// no file has.
func (f *folder) key(name string) (*keys.Key, error) {
	name = strings.TrimPrefix(name, "/")
	if !fs.ValidPath(name) || name == "." {
		return nil, fault.New(fault.NotFound, "read key: no file can have this name")
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read key: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fault.New(fault.NotFound, "read key: it is not a file")
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fault.Wrap(err, "read key")
	}
	if len(data) > maxSize {
		return nil, fault.New(fault.Invalid, "read key: the file has more than %d bytes", maxSize)
	}
	format := keys.Guess
	switch strings.ToLower(path.Ext(name)) {
	case ".pem":
		format = keys.PEM
	case ".json":
		format = keys.JWK
	}
	return keys.Parse(data, format)
}
