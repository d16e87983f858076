// Package instances knows which Penstocks of this user run on this machine: each
// has written a small file about itself in a folder that only the user can read.
//
// A process calls [Registry.Add] when it has its ports, and the function it gets
// back when it ends. [Registry.List] is for those who look. [Process] tells
// whether a process is still there and sends it signals.
//
// The package promises that a file is there whole or not at all; that one whose
// process has ended, by kill too, is not listed and is removed, even when another
// process has got the same number; and that files which somebody else could have
// written are not believed. Nothing here keeps a process from starting: without a
// folder to write to there is an error, and the caller goes on.
package instances

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Instance is one Penstock as it describes itself.
type Instance struct {
	AppID    string `json:"appId"`
	HTTPPort int    `json:"httpPort"` // zero when it listens on a socket
	GRPCPort int    `json:"grpcPort"`
	AppPort  int    `json:"appPort"` // zero without an app that listens
	// Command is that of the app, when it was started with one.
	Command string    `json:"command"`
	Created time.Time `json:"created"`
	// Self is the process that serves.
	Self Process `json:"self"`
	// Runner is the process that has started this one from a run file, zero if
	// none has; RunFile is that file.
	Runner  Process `json:"runner"`
	RunFile string  `json:"runFile"`
	// AppPID is the process of the app, zero when it was not started here.
	AppPID int `json:"appPid"`
	// AppLog and Log are the files that the app's output and Penstock's own log
	// go to, empty when there are none.
	AppLog string `json:"appLog"`
	Log    string `json:"log"`
	// Console is the address of the console, empty when there is none, and
	// ConsoleToken lets its user in: only that user can read this.
	Console      string `json:"console"`
	ConsoleToken string `json:"consoleToken"`
	// DataDir is the folder of embedded storage, in full.
	DataDir string `json:"dataDir"`
	// Grace is how long a clean stop may take.
	Grace time.Duration `json:"grace"`
	// Host is the machine: a home folder may be shared.
	Host string `json:"host"`
}

// Bounds of what is read.
const (
	maxFileBytes = 64 << 10
	maxFiles     = 10_000
)

// Registry is the folders of one user. The first that can be written takes new
// files; all are read.
type Registry struct {
	folders []string
	host    string
}

// Open returns the registry of this user. A process without HOME has only the
// folder for temporary files; nothing is made before Add.
func Open() Registry {
	var folders []string
	if cache, err := os.UserCacheDir(); err == nil {
		folders = append(folders, filepath.Join(cache, "penstock", "instances"))
	}
	return In(append(folders, filepath.Join(os.TempDir(), "penstock-"+strconv.Itoa(os.Geteuid())))...)
}

// In is a registry of the given folders.
func In(folders ...string) Registry {
	host, err := os.Hostname()
	if err != nil {
		host = "" // then all are of this machine
	}
	return Registry{folders: folders, host: host}
}

// Add tells of this process until remove is called. Who it is and on which
// machine is filled in.
func (r Registry) Add(i Instance) (remove func(), err error) {
	i.Self, i.Host = Of(os.Getpid()), r.host
	if i.Created.IsZero() {
		i.Created = time.Now()
	}
	data, err := json.Marshal(i)
	if err != nil {
		return nil, fault.Wrap(err, "register instance")
	}
	var failed []error
	for _, folder := range r.folders {
		name := filepath.Join(folder, strconv.Itoa(i.Self.PID)+".json")
		if err := write(folder, name, data); err != nil {
			failed = append(failed, err)
			continue
		}
		return func() { os.Remove(name) }, nil
	}
	return nil, fault.Wrap(errors.Join(failed...), "register instance")
}

// write puts a file into a folder whole.
func write(folder, name string, data []byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := private(folder); err != nil {
		return err
	}
	fresh := strings.TrimSuffix(name, ".json") + ".new"
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, name)
}

// private tells whether a folder is one that nobody else can write to.
func private(folder string) error {
	info, err := os.Lstat(folder)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fault.New(fault.Denied, "use folder %s: it is something else", folder)
	case info.Mode().Perm()&0o022 != 0 || !ours(info):
		return fault.New(fault.Denied, "use folder %s: others can write to it", folder)
	}
	return nil
}

// List returns what runs, in the order of the app ids and then the oldest first.
// Files of processes that have ended are removed.
func (r Registry) List() ([]Instance, error) {
	var list []Instance
	var failed []error
	for _, folder := range r.folders {
		err := private(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = r.read(folder, &list)
		}
		failed = append(failed, err)
	}
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), a.Created.Compare(b.Created), cmp.Compare(a.Self.PID, b.Self.PID))
	})
	return list, fault.Wrap(errors.Join(failed...), "list instances")
}

func (r Registry) read(folder string, list *[]Instance) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries[:min(len(entries), maxFiles)] {
		name := filepath.Join(folder, e.Name())
		i, err := readFile(e, name)
		switch {
		case err != nil: // not ours, or gone since
		case i.Host != r.host:
		case i.Self.Alive():
			*list = append(*list, i)
		default:
			os.Remove(name)
		}
	}
	return nil
}

// errForeign is about files that no instance has written.
var errForeign = errors.New("not the file of an instance")

func readFile(e fs.DirEntry, name string) (i Instance, err error) {
	pid, ok := strings.CutSuffix(e.Name(), ".json")
	if !ok || !e.Type().IsRegular() {
		return i, errForeign
	}
	f, err := os.Open(name)
	if err != nil {
		return i, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, err
	}
	if strconv.Itoa(i.Self.PID) != pid || i.AppID == "" {
		return i, errForeign
	}
	return i, nil
}
