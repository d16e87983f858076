// Package file is the input binding that reads the files appearing in a folder.
//
// Configure it as bindings.file with a path. Each file is one event (mode
// whole) or one event a line (mode lines). What happens to a file that was
// delivered is said by after: move it, delete it, or keep it and remember it.
//
// Delivery: at least once. An ack means that the event is noted as done in
// SQLite; of lines the contiguous prefix of settled ones is noted, so that a
// restart goes on behind it. A file is moved or deleted only after that note is
// on the disk, and a move that a crash interrupted is finished without a second
// delivery. A file that is too large is set aside in failedDir and logged. In
// lines mode a file that has grown is read on from where it ended.
//
// A file is read when its size and time have not changed for stableFor, and only
// when it lies in the folder itself: symbolic links, folders, names that begin
// with a dot and names that end in .tmp or .part are left alone. One process at
// a time reads a folder. Bounds: 64 files under way, 16 lines of each (256 with
// orderBy none), 64 MiB of file contents (or one larger file), 100000 names.
package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxJobs    = 64
	maxBytes   = 64 << 20 // of whole files under way
	maxTracked = 100_000
	maxLimit   = 1 << 30

	whole = "whole"
	lines = "lines"
	move  = "move"
	del   = "delete"
	keep  = "keep"
)

// Component is listed in package all.
var Component = bindings.Define("file", component.About{
	Summary: "Reads the files that appear in a folder, whole or line by line",
	Ack:     "The file or line is noted as done in SQLite; a file that is done is then moved, deleted or remembered.",
	Order:   "Lines of a file in order with orderBy file; files are begun in the order of their modification times.",
	Limits: "64 files under way, 16 lines of each (256 with orderBy none), 64 MiB of whole files (or one larger); " +
		"files of maxFileSize, lines of maxLineSize.",
	Scale: "One process reads a folder; others wait.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: inbox
spec:
  type: bindings.file
  version: v1
  metadata:
    - name: path
      value: ./inbox
    - name: pattern
      value: "*.csv"
    - name: mode
      value: lines
`,
	Capabilities: []string{bindings.InputCapability},
}, open)

type options struct {
	Path        string         `meta:"path,required" doc:"Folder to read; made when it does not exist." example:"./inbox"`
	Pattern     string         `meta:"pattern" doc:"Which names to read, with *, ? and [a-z]." default:"*" example:"*.csv"`
	Mode        string         `meta:"mode" doc:"Whether a file is one event, or each of its lines is. Lines come without their line end; empty ones are left out." enum:"whole|lines" default:"whole"`
	After       string         `meta:"after" doc:"What happens to a file that was delivered: move to doneDir, delete, or keep (a file that changes is then read again)." enum:"move|delete|keep" default:"move"`
	DoneDir     string         `meta:"doneDir" doc:"Folder within path for files that were delivered." default:".done"`
	FailedDir   string         `meta:"failedDir" doc:"Folder within path for files that cannot be delivered; with after keep they stay where they are." default:".failed"`
	StableFor   time.Duration  `meta:"stableFor" doc:"How long size and time of a file must not change before it is read." default:"500ms"`
	Interval    time.Duration  `meta:"interval" doc:"How often the folder is looked through, beside being watched." default:"10s"`
	MaxFileSize component.Size `meta:"maxFileSize" doc:"Largest file of mode whole; a larger one goes to failedDir." default:"16Mi"`
	MaxLineSize component.Size `meta:"maxLineSize" doc:"Longest line of mode lines; a file with a longer one goes to failedDir after the lines before it." default:"1Mi"`
	OrderBy     string         `meta:"orderBy" doc:"file delivers the lines of one file one after the other, none at the same time." enum:"file|none" default:"file"`
	ContentType string         `meta:"contentType" doc:"Content type of the data; guessed from the end of the name when empty." example:"text/csv"`
}

// Check refuses patterns, folders and limits that cannot work.
func (o options) Check() error {
	var errs []error
	if _, err := filepath.Match(o.Pattern, "x"); err != nil || filepath.Base(o.Pattern) != o.Pattern {
		errs = append(errs, component.OptionErrorf("pattern", "%q is not a pattern for names, such as *.csv", o.Pattern))
	}
	errs = append(errs, checkDir("doneDir", o.DoneDir), checkDir("failedDir", o.FailedDir),
		checkSize("maxFileSize", o.MaxFileSize), checkSize("maxLineSize", o.MaxLineSize))
	if o.StableFor < 0 || o.StableFor > time.Hour {
		errs = append(errs, component.OptionErrorf("stableFor", "%s is not between 0s and 1h", o.StableFor))
	}
	if o.Interval < 10*time.Millisecond {
		errs = append(errs, component.OptionErrorf("interval", "%s is shorter than 10ms", o.Interval))
	}
	return errors.Join(errs...)
}

func checkDir(option, dir string) error {
	if !filepath.IsLocal(dir) || filepath.Clean(dir) == "." {
		return component.OptionErrorf(option, "%q is not a folder within path", dir)
	}
	return nil
}

func checkSize(option string, size component.Size) error {
	if size < 1 || size > maxLimit {
		return component.OptionErrorf(option, "must be between 1 and 1Gi")
	}
	return nil
}

// binding is the driver. Read runs at most once at a time.
type binding struct {
	env     component.Env
	options options
	root    *os.Root
	ledger  *ledger
	bytes   *semaphore.Weighted

	reading sync.Mutex
	scanner scanner // used by Read only

	wakeScan   chan struct{}
	wakeFinish chan struct{}
	stop       chan struct{} // closed by Close: no more passes
	stopped    chan struct{} // closed by the finisher

	mu     sync.Mutex // guards what follows, and the jobs
	jobs   map[string]*job
	closed bool
	cancel context.CancelFunc // of the running Read
	lock   *os.File           // taken by the first Read
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	if err := os.MkdirAll(o.Path, 0o755); err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	root, err := os.OpenRoot(o.Path)
	if err != nil {
		return nil, fault.Wrap(err, "open folder")
	}
	ledger, err := openLedger(ctx, env, o.Path)
	if err != nil {
		_ = root.Close() // the first error says more
		return nil, err
	}
	b := &binding{
		env: env, options: o, root: root, ledger: ledger, bytes: semaphore.NewWeighted(maxBytes),
		scanner:  scanner{tracked: map[string]*sighting{}, told: map[string]string{}},
		wakeScan: make(chan struct{}, 1), wakeFinish: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
		jobs: map[string]*job{},
	}
	go b.finishLoop(context.WithoutCancel(ctx))
	return b, nil
}

// Close stops a Read that still runs, notes down every outcome that has come,
// and frees the folder. Outcomes that come later change nothing.
func (b *binding) Close(context.Context) error {
	b.mu.Lock()
	twice := b.closed
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	if twice {
		return nil
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	close(b.stop)
	<-b.stopped
	errs := []error{b.ledger.db.Close(), b.root.Close()}
	for _, j := range b.jobs {
		j.close()
	}
	if b.lock != nil {
		errs = append(errs, freeFolder(b.lock))
	}
	return fault.Wrap(errors.Join(errs...), "close folder")
}

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
