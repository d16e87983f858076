package main

import (
	goruntime "runtime"
	"runtime/debug"
)

// release is the version of the next release; a build from a tag replaces it.
const release = "0.1.0-dev"

type info struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Commit   string `json:"commit"`
	Platform string `json:"platform"`
}

func version() string { return buildInfo().Version }

func buildInfo() info {
	i := info{Version: release, Go: goruntime.Version(), Platform: goruntime.GOOS + "/" + goruntime.GOARCH}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return i
	}
	if v := b.Main.Version; v != "" && v != "(devel)" {
		i.Version = v
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			i.Commit = s.Value
		}
	}
	return i
}
