package services

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ferretFiles are its source; they are named so that they can be part of this
// program, which a module in a folder of it could not.
func ferretFiles() []string { return []string{"main.go", "go.mod", "go.sum"} }

// ferretFolder is where it is built.
func ferretFolder() string {
	var all strings.Builder
	for _, name := range ferretFiles() {
		all.WriteString(list("ferretdb/" + name + ".txt"))
	}
	return folderOf("ferretdb", all.String())
}

// ferretdb is the program of ferretdb/, which Go builds.
func ferretdb() tool {
	return tool{name: "FerretDB", cached: true, found: func() string { return complete(ferretFolder(), "ferretdb") }}
}

func ferretVersion() string {
	return regexp.MustCompile(`FerretDB/FerretDB v([\d.]+)`).FindStringSubmatch(list("ferretdb/go.mod.txt"))[1]
}

// mongodb is FerretDB: what speaks MongoDB's protocol and keeps documents in
// SQLite. It has no transactions. It is given one command at a time, since its
// own are not atomic.
func mongodb() recipe {
	return recipe{name: "mongodb", ports: 1, tools: []tool{ferretdb()}, version: ferretVersion, lay: func(s *Server) error {
		s.Addr = s.at(0)
		// A message {hello: 1, $db: "admin"}, and the numbers that its answer repeats.
		hello := "\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00" +
			"\x1f\x00\x00\x00\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"
		answers := func(got string) bool { return got[8:] == "\x01\x00\x00\x00\xdd\x07\x00\x00" }
		s.node(0, talk(hello, 16, answers), ferretdb().found(), s.at(0), s.path("data"))
		return os.Mkdir(s.path("data"), 0o755)
	}}
}

// buildFerretDB builds it, from a module of its own that has the sum of all that
// it needs.
func buildFerretDB(ctx context.Context, say func(string)) error {
	dir := ferretFolder()
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
	for _, name := range ferretFiles() {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(list("ferretdb/"+name+".txt")), 0o644))
	}
	if err == nil {
		err = fetch(ctx, say, "env", "GOFLAGS=", "GOWORK=off", "go", "build", "-C", dir, "-o", "ferretdb", ".")
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ready), nil, 0o644)
}
