package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// RunFile is Dapr's multi-app run file, dapr.yaml: programs to start, each with
// Penstock beside it.
type RunFile struct {
	// File is the absolute path; empty when it was no file.
	File string
	Apps []RunApp
	// Unused lists the fields given that Dapr has and Penstock has no use for.
	Unused []string
}

// RunApp is one app of a run file, with what all have in common taken in. Paths
// are absolute and exist.
type RunApp struct {
	ID  string // the name of its folder, when none is given
	Dir string
	// Command is the program and its arguments; without one only Penstock runs.
	Command []string
	// Env is for the program, not for Penstock.
	Env map[string]string
	// Port is the app's; HTTPPort and GRPCPort are Penstock's. Zero: not given.
	Port, HTTPPort, GRPCPort int
	Resources                []string
	Config                   string // empty: none
	AppLog, Log              LogTarget
	// Flags are all other settings, as flags of Penstock (those of daprd) without
	// the dashes.
	Flags []RunFlag
	Place Place
}

// RunFlag is one setting of an app that is a flag of the same meaning.
type RunFlag struct{ Name, Value string }

// LogTarget says where a log goes.
type LogTarget struct{ File, Console bool }

// RunFileName is the file that is looked for when a folder is given.
const RunFileName = "dapr.yaml"

// LoadRunFile reads a run file, or the dapr.yaml of a folder. It is fit for use
// when no problem is an error (see [Problems.Split]). An unknown field is one,
// unlike in Dapr: what is misspelt here is found by nobody later.
func LoadRunFile(path string) (RunFile, Problems) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, RunFileName)
	}
	s := readFile(path)
	if s.problem != nil {
		return RunFile{}, Problems{*s.problem}
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return RunFile{}, Problems{{Place: Place{File: path}, Text: "find run file: " + cause(err), Cause: err}}
	}
	file, problems := ParseRunFile(path, filepath.Dir(full), s.data)
	file.File = full
	return file, problems
}

// ParseRunFile is LoadRunFile for a text in memory. Paths in it start at dir,
// which is absolute.
func ParseRunFile(name, dir string, data []byte) (RunFile, Problems) {
	r := &runReader{reader: reader{file: name}, dir: dir, ports: map[int]Place{}}
	text, ok := r.plain(data)
	if !ok {
		return RunFile{}, r.problems
	}
	r.lines = strings.Split(text, "\n")
	switch roots := r.parseYAML(text+"\n", 1); {
	case len(r.problems) > 0:
	case len(roots) == 0:
		r.hard(Place{File: name}, "it needs version: 1 and apps", "the run file is empty")
	case len(roots) > 1:
		r.hard(roots[1].at, "write all apps into one", "a run file is one document")
	default:
		r.document(roots[0])
	}
	return r.run, r.problems
}

// runReader reads one run file.
type runReader struct {
	reader
	run   RunFile
	dir   string // of the file
	ports map[int]Place
}

func (r *runReader) document(n *node) {
	if n.kind == tableNode && n.pair("kind") != nil && n.pair("apps") == nil {
		r.hard(n.at, "a run file has version: 1 and apps; resources go into a folder that resourcesPaths names", "this is a resource, not a run file")
		return
	}
	f := r.table(n, "", n.at, true)
	if f.get("version") == nil {
		f.missing("version")
	} else if v := f.int("version", 1, 1, maxPort); v != 1 {
		f.wrong(f.get("version"), "version", "1")
	}
	f.skip("name")
	common := f.table("common")
	shared := r.shared(common, r.dir)
	r.unused(common)
	common.done()
	list := f.items("apps")
	if f.get("apps") == nil {
		f.missing("apps")
	}
	for i, item := range list {
		r.app(r.table(item, fmt.Sprintf("apps[%d]", i), item.at, true), shared)
	}
	f.done()
	if f.get("apps") != nil && len(list) == 0 && len(r.problems) == 0 {
		f.wrong(f.get("apps"), "apps", "at least one app")
	}
}

// runShared is what may stand in common, and in each app over it.
type runShared struct {
	env       map[string]string
	resources []string
	config    string
	appLog    string
	log       string
	flags     []RunFlag
}

// over is s where it says something, and else what is below.
func (s runShared) over(below runShared) runShared {
	env := map[string]string{}
	for _, layer := range []map[string]string{below.env, s.env} {
		maps.Copy(env, layer)
	}
	s.env = env
	s.appLog = orElse(s.appLog, below.appLog)
	s.log = orElse(s.log, below.log)
	for _, flag := range below.flags {
		if !slices.ContainsFunc(s.flags, func(own RunFlag) bool { return own.Name == flag.Name }) {
			s.flags = append(s.flags, flag)
		}
	}
	return s
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// shared reads the fields that common and an app both have.
func (r *runReader) shared(f *fields, dir string) (s runShared) {
	s.env = f.env("env")
	s.resources = r.resources(f, dir)
	s.config = r.path(f, f.get("configFilePath"), "configFilePath", dir)
	s.appLog, s.log = f.word("appLogDestination", logTargets()...), f.word("daprdLogDestination", logTargets()...)
	for _, setting := range sharedSettings() {
		s.flags = append(s.flags, setting.read(f)...)
	}
	return s
}

// app reads one app.
func (r *runReader) app(f *fields, below runShared) {
	a := RunApp{ID: f.text("appID"), Place: f.at}
	folder := f.get("appDirPath")
	if folder == nil {
		f.missing("appDirPath")
	}
	a.Dir = r.folder(f, folder)
	own := r.shared(f, orElse(a.Dir, r.dir))
	a.Command = f.command()
	a.Port = f.port("appPort")
	a.HTTPPort, a.GRPCPort = f.port("daprHTTPPort"), f.port("daprGRPCPort")
	for _, setting := range appSettings() {
		own.flags = append(own.flags, setting.read(f)...)
	}
	r.unused(f)
	f.done()
	r.identity(f, &a)
	for _, field := range []string{"appPort", "daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort", "profilePort"} {
		r.claim(f, field)
	}
	s := own.over(below)
	a.Env, a.Flags = s.env, s.flags
	a.AppLog, a.Log = logTarget(orElse(s.appLog, "fileAndConsole")), logTarget(orElse(s.log, "file"))
	a.resolve(own, below)
	r.run.Apps = append(r.run.Apps, a)
}

// resolve finds resources and configuration: those that the app names, else those
// in the folder .dapr beside it, else those of common.
func (a *RunApp) resolve(own, below runShared) {
	a.Resources, a.Config = own.resources, own.config
	beside := filepath.Join(a.Dir, ".dapr")
	if folder := filepath.Join(beside, "resources"); len(a.Resources) == 0 && exists(folder) {
		a.Resources = []string{folder}
	}
	if file := filepath.Join(beside, "config.yaml"); a.Config == "" && exists(file) {
		a.Config = file
	}
	if len(a.Resources) == 0 {
		a.Resources = below.resources
	}
	a.Config = orElse(a.Config, below.config)
}

// identity makes sure that an app has an id. Several may have the same one: they
// are instances of one app.
func (r *runReader) identity(f *fields, a *RunApp) {
	at := f.place("appID")
	if a.ID == "" && a.Dir != "" {
		a.ID, at = filepath.Base(a.Dir), f.place("appDirPath")
	}
	if a.ID == "" {
		return // the folder is wrong, which is reported
	}
	if !goodName(a.ID) {
		r.hard(at, `give an appID of letters, digits, "-", "." and "_"`, "%s: the app id %q is not a good name", f.path, cut(a.ID, 80))
	}
}

// claim reports a port that is given twice.
func (r *runReader) claim(f *fields, field string) {
	n := f.get(field)
	if n == nil || n.kind != scalarNode {
		return
	}
	port := f.quietPort(n)
	if first, dup := r.ports[port]; dup && port > 0 {
		r.hard(n.at, "give one of them another port", "%s is %d, which is already given at %s", f.name(field), port, first)
		return
	}
	r.ports[port] = n.at
}
