// Package file is the name resolution "nameresolution.file": addresses that
// somebody has written into a file, for those who have nothing else.
//
// It is set as spec.nameResolution of a Configuration with the path of a YAML or
// JSON file: a mapping of app ids to an address host:port, or to a list of them.
// An id with a namespace, as "shop.prod", wins over the bare one for that
// namespace.
//
// It promises that a changed file counts within two seconds, and that a change
// that cannot be read leaves the addresses as they were and is logged once. The
// file may have 4 MiB.
package file

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("file", component.About{
	Summary: "Addresses of apps in a YAML or JSON file",
	Limits:  "The file may have 4 MiB. It is looked at again every two seconds while it is needed.",
	Scale:   "Every process reads the file by itself; nothing is announced.",
	Dapr:    "Dapr has no such name resolution.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: file
    configuration:
      path: ./apps.yaml
`,
}, open)

type options struct {
	Path string `meta:"path,required" doc:"Path of the file: app ids, each with an address host:port or a list of them." example:"./apps.yaml"`
}

const maxSize = 4 << 20

type resolver struct {
	path   string
	env    component.Env
	logger *slog.Logger

	mu    sync.Mutex  // guards what follows
	stamp os.FileInfo // of the last reading, good or bad
	apps  map[string][]string
}

func open(_ context.Context, env component.Env, o options) (names.Driver, error) {
	r := &resolver{path: o.Path, env: env, logger: env.Logger}
	var err error
	if r.stamp, r.apps, err = r.read(); err != nil {
		return nil, err
	}
	return r, nil
}

// Resolve implements names.Driver.
func (r *resolver) Resolve(_ context.Context, app names.App) ([]string, error) {
	apps := r.current()
	namespace := app.Namespace
	if namespace == "" {
		namespace = r.env.Namespace
	}
	list := apps[app.ID+"."+namespace]
	if list == nil {
		list = apps[app.ID]
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "%s does not name it", r.path)
	}
	return slices.Clone(list), nil
}

// Close implements names.Driver.
func (r *resolver) Close(context.Context) error { return nil }

// current returns what the file says now; nobody changes the map afterwards.
func (r *resolver) current() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err == nil && r.stamp != nil && os.SameFile(info, r.stamp) && info.ModTime().Equal(r.stamp.ModTime()) && info.Size() == r.stamp.Size() {
		return r.apps
	}
	stamp, apps, err := r.read()
	if err != nil {
		if stamp != nil || r.stamp != nil { // not again for a file that is still missing
			r.logger.Warn("File of addresses changed and cannot be read, going on with what was read before", "error", err)
		}
		r.stamp = stamp
		return r.apps
	}
	r.stamp, r.apps = stamp, apps
	return apps
}

// read reads the whole file. The FileInfo is nil when it could not be opened.
func (r *resolver) read() (os.FileInfo, map[string][]string, error) {
	f, err := os.Open(r.path)
	if err != nil {
		return nil, nil, fault.Wrap(err, "open file of addresses")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fault.Wrap(err, "read file of addresses")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return info, nil, fault.Wrap(err, "read file of addresses")
	}
	if len(data) > maxSize {
		return info, nil, fault.New(fault.Invalid, "read file of addresses %s: more than %d bytes", r.path, maxSize)
	}
	apps, problems := config.ParseLists(r.path, data)
	if len(problems) > 0 {
		return info, nil, fault.As(fault.Invalid, problems)
	}
	for id, list := range apps {
		for _, address := range list {
			if err := check(address); err != nil {
				return info, nil, fault.New(fault.Invalid, "read file of addresses %s: app %q: %w", r.path, id, err)
			}
		}
	}
	return info, apps, nil
}

// check refuses what is no host and port.
func check(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fault.New(fault.Invalid, "address %q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return fault.New(fault.Invalid, "address %q has no host, or no port from 1 to 65535", address)
	}
	return nil
}
