// Package file is the configuration store "configuration.file": one JSON file
// that people, or a mounted volume, change.
//
// It is opened through [Component]. The file is one object; a member is an item:
// a text, or {"value", "version", "metadata"}, or any other JSON value, which is
// handed on as it is written.
//
// It promises that a changed file is read before the next answer, that
// subscriptions hear of the change within a second, and that a change that
// cannot be read leaves the items as they were and is logged once. The file may
// have 4 MiB.
package file

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// Component is "configuration.file".
var Component = configuration.Define("file", component.About{
	Summary: "Configuration in a JSON file, for one machine and without a server",
	Ack:     "A change is told again until the subscriber has taken it",
	Limits:  "The file may have 4 MiB.",
	Scale:   "Every process reads the file by itself.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: settings
spec:
  type: configuration.file
  version: v1
  metadata:
    - name: path
      value: ./settings.json
`,
}, open)

type options struct {
	Path string `meta:"path,required" doc:"Path of the JSON file." example:"./settings.json"`
}

const (
	maxSize = 4 << 20
	// pollInterval is how often the file is looked at where the system tells of
	// no changes.
	pollInterval = 2 * time.Second
)

type store struct {
	path    string
	logger  *slog.Logger
	watches configuration.Watches

	mu    sync.Mutex
	stamp os.FileInfo // of the last reading, good or bad
	items map[string]configuration.Item
}

func open(_ context.Context, env component.Env, o options) (configuration.Driver, error) {
	s := &store{path: o.Path, logger: env.Logger}
	var err error
	s.stamp, s.items, err = s.read()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Get implements configuration.Driver.
func (s *store) Get(_ context.Context, keys []string, _ map[string]string) (map[string]configuration.Item, error) {
	all := s.current()
	if len(keys) == 0 {
		return maps.Clone(all), nil
	}
	out := make(map[string]configuration.Item, len(keys))
	for _, key := range keys {
		if it, ok := all[key]; ok {
			out[key] = it
		}
	}
	return out, nil
}

// Watch implements configuration.Driver: a change of the file may be one of
// every item that was or is in it.
func (s *store) Watch(ctx context.Context, w configuration.Watch) error {
	ctx, done, err := s.watches.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	known := s.current()
	changed := func() {
		before := known
		known = s.current()
		for key := range before {
			w.Changed(key)
		}
		for key := range known {
			if _, was := before[key]; !was {
				w.Changed(key)
			}
		}
	}
	if config.WatchFile(ctx, s.path, w.Up, changed) == nil {
		return nil
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	w.Up()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			changed()
		}
	}
}

// Close implements configuration.Driver.
func (s *store) Close(context.Context) error {
	s.watches.End()
	return nil
}

// current returns the items of the file as it is now; nobody changes the map
// afterwards.
func (s *store) current() map[string]configuration.Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err == nil && s.stamp != nil && os.SameFile(info, s.stamp) && info.ModTime().Equal(s.stamp.ModTime()) && info.Size() == s.stamp.Size() {
		return s.items
	}
	stamp, items, err := s.read()
	if err != nil {
		if stamp != nil || s.stamp != nil { // not again for a file that is still missing
			s.logger.Warn("Configuration file changed and cannot be read, going on with what was read before", "error", err)
		}
		s.stamp = stamp
		return s.items
	}
	s.stamp, s.items = stamp, items
	return items
}

// read reads the whole file. The FileInfo is nil when it could not be opened.
func (s *store) read() (os.FileInfo, map[string]configuration.Item, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, nil, fault.Wrap(err, "open configuration file")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fault.Wrap(err, "read configuration file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return info, nil, fault.Wrap(err, "read configuration file")
	}
	if len(data) > maxSize {
		return info, nil, fault.New(fault.Invalid, "read configuration file %s: more than %d bytes", s.path, maxSize)
	}
	items, err := parse(data)
	if err != nil {
		return info, nil, fault.New(fault.Invalid, "read configuration file %s: %w", s.path, err)
	}
	return info, items, nil
}

// parse reads one object of items.
func parse(data []byte) (map[string]configuration.Item, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	items := make(map[string]configuration.Item, len(members))
	for key, raw := range members {
		items[key] = item(raw)
	}
	return items, nil
}

// item reads one member.
func item(raw json.RawMessage) configuration.Item {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return configuration.Item{Value: text}
	}
	var whole struct {
		Value    *string           `json:"value"`
		Version  string            `json:"version"`
		Metadata map[string]string `json:"metadata"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if d.Decode(&whole) == nil && whole.Value != nil {
		return configuration.Item{Value: *whole.Value, Version: whole.Version, Metadata: whole.Metadata}
	}
	return configuration.Item{Value: string(raw)}
}
