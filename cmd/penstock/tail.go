package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
)

type logsCommand struct {
	AppID   string `name:"app-id" short:"a" required:"" help:"The app."`
	RunFile string `name:"run-file" help:"Look beside this run file, for an app that no longer runs."`
	Own     bool   `name:"own" help:"Only Penstock's own log."`
	App     bool   `name:"app" help:"Only the app's output."`
	Follow  bool   `name:"follow" short:"f" help:"Go on with what is written, until the app has ended."`
	Tail    int    `name:"tail" short:"n" default:"-1" help:"Only the last lines of each file; -1: all."`
}

// logged is one log file of an app.
type logged struct {
	prefix, path string
	from         instances.Process // who writes it; zero: nobody any more
}

// Run prints the log files of an app, each line with the name of its origin when
// there are two. A run that writes no files has none.
func (c *logsCommand) Run(ctx context.Context, std *stdio) error {
	files, err := c.files()
	if err != nil {
		return err
	}
	var lock sync.Mutex
	var all sync.WaitGroup
	failed := make([]error, len(files))
	for n, file := range files {
		out := &prefixed{w: std.out, lock: &lock}
		if len(files) > 1 {
			out.prefix = file.prefix
		}
		show := func() {
			failed[n] = c.show(ctx, file, out)
			out.flush()
		}
		if c.Follow {
			all.Go(show)
		} else {
			show()
		}
	}
	all.Wait()
	return errors.Join(failed...)
}

// files finds the files to print: those of running instances, else the newest
// beside a run file.
func (c *logsCommand) files() ([]logged, error) {
	list, err := instances.Open().List()
	if err != nil && len(list) == 0 {
		return nil, err
	}
	if c.RunFile != "" { // another app of that id is not meant
		if list, err = startedFrom(list, c.RunFile); err != nil {
			return nil, err
		}
	}
	named, err := find(list, c.AppID)
	if err != nil && c.RunFile != "" {
		return c.left()
	} else if err != nil {
		return nil, fault.New(fault.NotFound, "%w; --run-file finds the logs of an app that has ended", err)
	}
	var files []logged
	for _, i := range named {
		files = append(files, logged{"app      | ", i.AppLog, i.Self}, logged{"penstock | ", i.Log, i.Self})
	}
	return c.chosen(files)
}

func (c *logsCommand) chosen(files []logged) ([]logged, error) {
	files = slices.DeleteFunc(files, func(l logged) bool {
		return l.path == "" || c.Own && !strings.HasPrefix(l.prefix, "penstock") || c.App && !strings.HasPrefix(l.prefix, "app")
	})
	if len(files) == 0 {
		return nil, fault.New(fault.NotFound, "app %s writes no such log file; a run file's daprdLogDestination and appLogDestination, or run --logs-dir, make some", c.AppID)
	}
	return files, nil
}

// left finds what an app of a run file has left behind.
func (c *logsCommand) left() ([]logged, error) {
	file, problems := config.LoadRunFile(c.RunFile)
	if errs, _ := problems.Split(false); len(errs) > 0 {
		return nil, errs.Err()
	}
	names := names(file.Apps)
	var files []logged
	for n, a := range file.Apps {
		if a.ID != c.AppID {
			continue
		}
		folder := filepath.Join(a.Dir, ".dapr", "logs")
		files = append(files,
			logged{prefix: "app      | ", path: newest(folder, names[n]+"_app_")},
			logged{prefix: "penstock | ", path: newest(folder, names[n]+"_daprd_")})
	}
	if len(files) == 0 {
		return nil, fault.New(fault.NotFound, "%s has no app called %q; %s", file.File, c.AppID, config.DidYouMean(c.AppID, names))
	}
	return c.chosen(files)
}

// newest returns the file of a folder whose name begins so and is the last.
func newest(folder, prefix string) string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return ""
	}
	for _, e := range slices.Backward(entries) { // they are sorted, and the time is part of the name
		stamp, ok := strings.CutPrefix(e.Name(), prefix)
		if ok && len(stamp) == len("20060102150405.log") {
			return filepath.Join(folder, e.Name())
		}
	}
	return ""
}

// show prints one file.
func (c *logsCommand) show(ctx context.Context, l logged, out io.Writer) error {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "read log: %w", err)
	} else if err != nil {
		return fault.Wrap(err, "read log")
	}
	defer f.Close()
	if c.Tail >= 0 {
		if err := toTail(f, c.Tail); err != nil {
			return fault.Wrap(err, "read log")
		}
	}
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		alive := c.Follow && l.from.Alive() // asked first, so that nothing is missed
		if _, err := io.Copy(out, f); err != nil {
			return fault.Wrap(err, "print log")
		}
		if !alive {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// followPause is how often a file is looked at that is followed.
const followPause = 200 * time.Millisecond

// toTail sets a file to where its last lines begin.
func toTail(f *os.File, lines int) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for at := end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size
		part := block[:size]
		if _, err := f.ReadAt(part, at); err != nil {
			return err
		}
		if at+size == end {
			part = bytes.TrimSuffix(part, []byte("\n")) // the end of the last line begins none
		}
		for len(part) > 0 && lines > 0 {
			n := bytes.LastIndexByte(part, '\n')
			if n < 0 {
				break
			}
			if lines--; lines == 0 {
				_, err := f.Seek(at+int64(n)+1, io.SeekStart)
				return err
			}
			part = part[:n]
		}
		if lines <= 0 {
			return nil // none are wanted
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
