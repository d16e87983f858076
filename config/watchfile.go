package config

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatchFile calls changed when the file at path may have changed, at most every
// 100 ms, until ctx ends. It looks at the folder that the file stands in, so a
// file that is replaced and a mount that swaps its links are noticed. Up is
// called first, once nothing can be missed any more. It fails where the system
// tells of no changes; reading again in intervals has to do there.
func WatchFile(ctx context.Context, path string, up, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // it only lets go
	if err := w.Add(filepath.Dir(path)); err != nil {
		return err
	}
	settle := time.NewTimer(time.Hour)
	settle.Stop()
	defer settle.Stop()
	up()
	for waiting := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
		case <-w.Errors: // events were lost
		case <-settle.C:
			waiting = false
			changed()
			continue
		}
		if !waiting { // the rest of a file that is being written comes soon
			waiting = true
			settle.Reset(settleTime)
		}
	}
}
