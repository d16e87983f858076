package services

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// What Go builds stands in folders here, as text: a module in a folder of this
// program could not be part of it.

// goFiles are the files of each.
func goFiles() []string { return []string{"main.go", "go.mod", "go.sum"} }

// goFolder is where one is built.
func goFolder(name string) string {
	var all strings.Builder
	for _, file := range goFiles() {
		all.WriteString(list(name + "/" + file + ".txt"))
	}
	return folderOf(name, all.String())
}

// ferretdb and vault are programs that Go builds.
func ferretdb() tool { return goBuilt("ferretdb", "FerretDB") }
func vault() tool    { return goBuilt("vault", "Vault") }

func goBuilt(name, title string) tool {
	return tool{name: title, cached: true, found: func() string { return complete(goFolder(name), name) }}
}

// goVersion is the version of the module that such a program is made of.
func goVersion(name, module string) func() string {
	return func() string {
		return regexp.MustCompile(regexp.QuoteMeta(module) + ` v([\d.]+)`).FindStringSubmatch(list(name + "/go.mod.txt"))[1]
	}
}

// buildGo makes a function that builds one, from a module of its own that has the
// sum of all that it needs.
func buildGo(name string) func(context.Context, func(string)) error {
	return func(ctx context.Context, say func(string)) error {
		dir := goFolder(name)
		err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
		for _, file := range goFiles() {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte(list(name+"/"+file+".txt")), 0o644))
		}
		if err == nil {
			err = fetch(ctx, say, "env", "GOFLAGS=", "GOWORK=off", "go", "build", "-C", dir, "-o", name, ".")
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, ready), nil, 0o644)
	}
}
