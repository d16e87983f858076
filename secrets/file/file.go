// Package file is the secret store that reads one JSON file.
//
// Configure it as secretstores.local.file with the path of the file. Nested
// objects and lists become names joined by the separator ("redis:password",
// "hosts:0"), or, with multiValued, one secret per top-level name with several
// values.
//
// It promises that a changed file is read again before the next answer, that the
// components that take secrets from it hear of the change at once, that a
// change that cannot be read leaves the secrets as they were and is logged
// once, and that no error text holds a value. The file may have 4 MiB.
package file

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("local.file", component.About{
	Summary: "Secrets from a JSON file",
	Limits:  "The file may have 4 MiB and 64 levels.",
	Scale:   "Every process reads the file by itself.",
	Dapr:    "A changed file is read again; a name that stands twice is an error.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: vault
spec:
  type: secretstores.local.file
  version: v1
  metadata:
    - name: secretsFile
      value: ./secrets.json
`,
}, open)

type options struct {
	SecretsFile     string `meta:"secretsFile,required" doc:"Path of the JSON file." example:"./secrets.json"`
	NestedSeparator string `meta:"nestedSeparator" doc:"Stands between the parts of a nested name." default:":"`
	MultiValued     bool   `meta:"multiValued" doc:"Makes each top-level object one secret with several values." default:"false"`
}

// Check refuses a separator that could not be told from a name.
func (o options) Check() error {
	if o.NestedSeparator == "" {
		return component.OptionErrorf("nestedSeparator", "must not be empty")
	}
	return nil
}

const maxSize = 4 << 20

type store struct {
	options options
	logger  *slog.Logger

	mu      sync.Mutex
	stamp   os.FileInfo // of the last reading, good or bad
	secrets map[string]map[string]string
}

func open(_ context.Context, env component.Env, o options) (secrets.Driver, error) {
	s := &store{options: o, logger: env.Logger}
	stamp, all, err := s.read()
	if err != nil {
		return nil, err
	}
	s.stamp, s.secrets = stamp, all
	return s, nil
}

// Get returns one secret: one pair named key, or all values of a multi-valued
// secret.
func (s *store) Get(_ context.Context, key string, _ map[string]string) (map[string]string, error) {
	values, ok := s.current()[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "read secret %q: not in %s", key, s.options.SecretsFile)
	}
	return maps.Clone(values), nil
}

// Bulk returns every secret of the file.
func (s *store) Bulk(context.Context, map[string]string) (map[string]map[string]string, error) {
	now := s.current()
	all := make(map[string]map[string]string, len(now))
	for key, values := range now {
		all[key] = maps.Clone(values)
	}
	return all, nil
}

// Watch implements [secrets.Watcher]. Where the system tells of no changes it
// returns, and reading again in intervals has to do.
func (s *store) Watch(ctx context.Context, changed func()) {
	_ = config.WatchFile(ctx, s.options.SecretsFile, changed, changed)
}

// Close has nothing to free: the file is open only while it is read.
func (s *store) Close(context.Context) error { return nil }

// current returns the secrets of the file as it is now; nobody changes the map
// afterwards.
func (s *store) current() map[string]map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.options.SecretsFile)
	if err == nil && same(info, s.stamp) {
		return s.secrets
	}
	stamp, all, err := s.read()
	if err != nil {
		if stamp != nil || s.stamp != nil { // not again for a file that is still missing
			s.logger.Warn("secrets file changed and cannot be read, going on with what was read before", "error", err)
		}
		s.stamp = stamp
		return s.secrets
	}
	s.stamp, s.secrets = stamp, all
	return all
}

// same tells whether nothing was written between the two. A file read within
// its clock tick could change unseen only by keeping its size as well.
func same(a, b os.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// read reads the whole file. The FileInfo is that of the file read, also when
// its content is wrong, and nil when it could not be opened.
func (s *store) read() (os.FileInfo, map[string]map[string]string, error) {
	path := s.options.SecretsFile
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fault.Wrap(err, "open secrets file")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fault.Wrap(err, "stat secrets file")
	}
	if !info.Mode().IsRegular() {
		return info, nil, fault.New(fault.Invalid, "read secrets file %s: not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return info, nil, fault.Wrap(err, "read secrets file")
	}
	if len(data) > maxSize {
		return info, nil, fault.New(fault.Invalid, "read secrets file %s: more than %d bytes", path, maxSize)
	}
	all, err := parse(data, s.options.NestedSeparator, s.options.MultiValued)
	if err != nil {
		return info, nil, fault.New(fault.Invalid, "read secrets file %s:%w", path, err)
	}
	return info, all, nil
}
