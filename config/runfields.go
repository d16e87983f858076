package config

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// This file has the kinds of values that only run files have, and the table of
// the settings that become flags.

const maxPort = 65535

// setting is a field of a run file that is a flag of Penstock too.
type setting struct {
	field, flag string
	kind        settingKind
	words       []string // of a wordSetting
}

type settingKind uint8

const (
	textSetting settingKind = iota
	wordSetting
	boolSetting
	countSetting // zero and less say nothing
	portSetting
	sizeSetting
)

// sharedSettings may stand in common too.
func sharedSettings() []setting {
	return []setting{
		{field: "appProtocol", flag: "app-protocol", kind: wordSetting, words: []string{"http", "https", "h2c", "grpc", "grpcs"}},
		{field: "apiListenAddresses", flag: "dapr-listen-addresses"},
		{field: "enableProfiling", flag: "enable-profiling", kind: boolSetting},
		{field: "logLevel", flag: "log-level", kind: wordSetting, words: []string{"debug", "info", "warn", "error", "fatal"}},
		{field: "appMaxConcurrency", flag: "app-max-concurrency", kind: countSetting},
		{field: "appSSL", flag: "app-ssl", kind: boolSetting},
		{field: "maxBodySize", flag: "max-body-size", kind: sizeSetting},
		{field: "readBufferSize", flag: "read-buffer-size", kind: sizeSetting},
		{field: "daprHTTPMaxRequestSize", flag: "dapr-http-max-request-size", kind: countSetting},
		{field: "daprHTTPReadBufferSize", flag: "dapr-http-read-buffer-size", kind: countSetting},
		{field: "enableAppHealthCheck", flag: "enable-app-health-check", kind: boolSetting},
		{field: "appHealthCheckPath", flag: "app-health-check-path"},
		{field: "appHealthProbeInterval", flag: "app-health-probe-interval", kind: countSetting},
		{field: "appHealthProbeTimeout", flag: "app-health-probe-timeout", kind: countSetting},
		{field: "appHealthThreshold", flag: "app-health-threshold", kind: countSetting},
		{field: "enableApiLogging", flag: "enable-api-logging", kind: boolSetting},
	}
}

// appSettings are those of one app.
func appSettings() []setting {
	return []setting{
		{field: "appChannelAddress", flag: "app-channel-address"},
		{field: "daprInternalGRPCPort", flag: "dapr-internal-grpc-port", kind: portSetting},
		{field: "metricsPort", flag: "metrics-port", kind: portSetting},
		{field: "profilePort", flag: "profile-port", kind: portSetting},
		{field: "unixDomainSocket", flag: "unix-domain-socket"},
	}
}

// read returns the flag of a setting, if it is given and right.
func (s setting) read(f *fields) []RunFlag {
	if f.get(s.field) == nil {
		return nil
	}
	value := ""
	switch s.kind {
	case textSetting:
		value = f.text(s.field)
	case wordSetting:
		value = f.word(s.field, s.words...)
	case boolSetting:
		value = strconv.FormatBool(f.bool(s.field))
	case countSetting:
		if n := f.int(s.field, 0, -1, 1<<30); n > 0 {
			value = strconv.Itoa(n)
		}
	case portSetting:
		if n := f.port(s.field); n > 0 {
			value = strconv.Itoa(n)
		}
	case sizeSetting:
		if value = f.text(s.field); value == "" {
			break
		}
		if _, err := ParseSize(value); err != nil {
			f.wrong(f.get(s.field), s.field, "a number of bytes such as 1000, 64Ki or 4Mi")
		}
	}
	if value == "" {
		return nil
	}
	return []RunFlag{{Name: s.flag, Value: value}}
}

// unused notes the fields that are Dapr's alone, each once.
func (r *runReader) unused(f *fields) {
	for _, field := range f.skip("placementHostAddress", "schedulerHostAddress", "runtimePath", "daprPath",
		"containerImage", "containerImagePullPolicy", "createService") {
		if !slices.Contains(r.run.Unused, field) {
			r.run.Unused = append(r.run.Unused, field)
		}
	}
}

func logTargets() []string { return []string{"file", "console", "fileAndConsole"} }

func logTarget(word string) LogTarget {
	return LogTarget{File: word != "console", Console: word != "file"}
}

// word reads one of a few words, in any case, and returns it as listed.
func (f *fields) word(name string, words ...string) string {
	n := f.get(name)
	if n == nil {
		return ""
	}
	if n.kind == scalarNode {
		for _, w := range words {
			if strings.EqualFold(n.text, w) {
				return w
			}
		}
	}
	want := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	hint := ""
	if near := Nearest(n.text, words); near != "" && n.kind == scalarNode {
		hint = `did you mean "` + near + `"?`
	}
	f.r.hard(n.at, hint, "%s is %s, want %s", f.name(name), n.what(), want)
	return ""
}

// port reads a port; zero, or -1 as Dapr has it, is none given.
func (f *fields) port(name string) int {
	n := f.get(name)
	if n == nil {
		return 0
	}
	if p := f.quietPort(n); p >= 0 {
		return p
	}
	f.wrong(n, name, "a port from 1 to 65535")
	return 0
}

// quietPort is port without complaints: -1 is wrong.
func (*fields) quietPort(n *node) int {
	if n.kind != scalarNode {
		return -1
	}
	s := n.scalar()
	p, err := strconv.Atoi(s.text)
	if err != nil || s.kind != numberScalar || p < -1 || p > maxPort {
		return -1
	}
	return max(p, 0)
}

// env reads a mapping of names to texts, which are taken as they are written.
func (f *fields) env(name string) map[string]string {
	n := f.get(name)
	if n == nil {
		return nil
	}
	if n.kind != tableNode {
		f.wrong(n, name, "a mapping of names to values")
		return nil
	}
	out := make(map[string]string, len(n.pairs))
	for _, p := range n.pairs {
		switch {
		case p.value.kind != scalarNode:
			f.r.hard(p.value.at, "", "%s.%s is %s, want a text", f.name(name), p.key, p.value.what())
		case p.key == "" || strings.ContainsAny(p.key, "=\x00") || strings.Contains(p.value.text, "\x00"):
			f.r.hard(p.at, "", "%s: %q cannot be the name of an environment variable", f.name(name), cut(p.key, 80))
		case p.value.scalar().kind == nullScalar:
			out[p.key] = ""
		default:
			out[p.key] = p.value.text
		}
	}
	return out
}

// command reads the words of a command. Words that look like numbers count.
func (f *fields) command() []string {
	n := f.get("command")
	if n != nil && n.kind == scalarNode {
		f.r.hard(n.at, `write it as a list, as in ["node", "app.js"]`, "%s is %s, want a list of words", f.name("command"), n.what())
		return nil
	}
	var words []string
	for i, item := range f.items("command") {
		switch {
		case item.kind != scalarNode:
			f.r.hard(item.at, "", "%s[%d] is %s, want a text", f.name("command"), i, item.what())
		case i == 0 && strings.TrimSpace(item.text) == "":
			f.r.hard(item.at, "name a program, or leave command out to run Penstock alone", "%s[0] is empty", f.name("command"))
		default:
			words = append(words, item.text)
		}
	}
	return words
}

// folder finds the folder of an app.
func (r *runReader) folder(f *fields, n *node) string {
	path := r.path(f, n, "appDirPath", r.dir)
	if path == "" {
		return ""
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		f.wrong(n, "appDirPath", "a folder")
		return ""
	}
	return path
}

// resources reads both fields that name folders of resources; a text with commas
// is several.
func (r *runReader) resources(f *fields, dir string) (paths []string) {
	add := func(n *node, field string) {
		if path := r.path(f, n, field, dir); path != "" {
			paths = append(paths, path)
		}
	}
	if n := f.get("resourcesPaths"); n != nil && n.kind == scalarNode {
		for part := range strings.SplitSeq(n.text, ",") {
			add(&node{kind: scalarNode, text: strings.TrimSpace(part), quoted: true, at: n.at}, "resourcesPaths")
		}
	} else {
		for _, item := range f.items("resourcesPaths") {
			add(item, "resourcesPaths")
		}
	}
	add(f.get("resourcesPath"), "resourcesPath")
	return paths
}

// path makes a path absolute that starts at dir, or at the home folder with ~.
// It is empty when there is none, or nothing there, which is reported.
func (r *runReader) path(f *fields, n *node, field, dir string) string {
	switch {
	case n == nil:
		return ""
	case n.kind != scalarNode || strings.TrimSpace(n.text) == "":
		f.wrong(n, field, "a path")
		return ""
	}
	path := n.text
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/' || rest[0] == filepath.Separator) {
		home, err := os.UserHomeDir()
		if err != nil {
			r.hard(n.at, "write the path in full", "%s is %s: there is no home folder", f.name(field), n.what())
			return ""
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if !exists(path) {
		r.hard(n.at, "", "%s is %s: there is no %s", f.name(field), n.what(), path)
		return ""
	}
	return filepath.Clean(path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
