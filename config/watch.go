package config

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Waits of the watcher.
const (
	settleTime   = 100 * time.Millisecond // without events before reading
	settleLimit  = time.Second            // reading is put off at most this long
	pollInterval = time.Minute            // with events
	pollOften    = 2 * time.Second        // where there are none
)

// Watch reads again whenever something in the folders and files changes, and
// calls onChange with what Load would return, but only when the content is other
// than at the last call. It blocks until ctx ends and leaves nothing behind;
// onChange is called from the same goroutine.
//
// Folders are watched, not files, so editors that replace files and mounts that
// swap links are noticed; so are folders that are removed and come back. Besides
// the events, everything is read each Options.Interval, or every 2 s where the
// system gives no events. Set Options.UUID and Options.Last to those of the set
// in use: the first keeps {uuid} the same, the second catches what changed
// before Watch began.
func Watch(ctx context.Context, o Options, onChange func(*Set, Problems)) {
	w := watcher{o: o, onChange: onChange}
	if w.o.UUID == "" {
		w.o.UUID = newUUID()
	}
	if w.o.Interval <= 0 {
		w.o.Interval = pollInterval
	}
	var events chan fsnotify.Event
	var errs chan error
	if notify, err := fsnotify.NewWatcher(); err == nil {
		defer func() { _ = notify.Close() }() // it only lets go
		w.notify, events, errs = notify, notify.Events, notify.Errors
	} else {
		w.o.Interval = min(w.o.Interval, pollOften)
	}
	w.begin()
	w.run(ctx, events, errs)
}

type watcher struct {
	o        Options
	onChange func(*Set, Problems)
	notify   *fsnotify.Watcher // nil: no events, only polling
	sum      string            // of what onChange saw last
}

// begin takes the state that counts as known. The folders are watched before
// they are read, so that no change can fall between.
func (w *watcher) begin() {
	w.watch()
	if w.o.Last != nil {
		w.sum = w.o.Last.Sum
		w.look()
		return
	}
	w.sum = sum(gather(w.o))
}

func (w *watcher) run(ctx context.Context, events <-chan fsnotify.Event, errs <-chan error) {
	poll := time.NewTicker(w.o.Interval)
	defer poll.Stop()
	settle := time.NewTimer(time.Hour)
	settle.Stop()
	defer settle.Stop()
	var first time.Time // of the events not looked at; zero: none
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if !w.matters(e) {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			settle.Reset(max(0, min(settleTime, settleLimit-time.Since(first))))
		case <-errs: // events were lost: look soon
			settle.Reset(settleTime)
		case <-settle.C:
			first = time.Time{}
			w.look()
		case <-poll.C:
			w.look()
		}
	}
}

// matters tells whether an event can be about what is read. The folder that a
// resource folder stands in may be a busy one.
func (w *watcher) matters(e fsnotify.Event) bool {
	switch strings.ToLower(filepath.Ext(e.Name)) {
	case ".yaml", ".yml":
		return true
	}
	if strings.HasPrefix(filepath.Base(e.Name), "..") {
		return true // "..data" is the link that Kubernetes swaps
	}
	name := filepath.Clean(e.Name)
	is := func(path string) bool { return filepath.Clean(path) == name }
	return slices.ContainsFunc(w.o.Configs, is) || slices.ContainsFunc(w.o.Resources, is)
}

// look reads everything and reports it when it is other than before.
func (w *watcher) look() {
	w.watch()
	sources := gather(w.o)
	now := sum(sources)
	if now == w.sum {
		return
	}
	w.sum = now
	w.onChange(read(sources, w.o))
}

// watch asks for events of every folder, again for those that came back, and of
// the folder each stands in, which tells when it comes back or its link turns.
// Where that cannot be had, polling has to do.
func (w *watcher) watch() {
	if w.notify == nil {
		return
	}
	for _, name := range w.o.Resources {
		_ = w.notify.Add(name)
		_ = w.notify.Add(filepath.Dir(filepath.Clean(name)))
	}
	for _, name := range w.o.Configs {
		_ = w.notify.Add(filepath.Dir(name))
	}
}
