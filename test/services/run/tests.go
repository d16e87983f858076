package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suffix of the files whose tests need a real server.
const suffix = "_services_test.go"

// tests runs the tests of real servers, of the packages given or of all that
// have some, those of modules of their own included, and prints which component
// ran how many cases on which server. A test that skipped is a failure: it would
// look as if it had run.
func tests(ctx context.Context, env, packages []string) int {
	modules, err := find(".")
	if err == nil && len(packages) > 0 {
		modules = []set{{folder: ".", packages: packages, names: modules[0].names}}
	}
	if err == nil && len(modules[0].packages) == 0 {
		err = errors.New("no tests of real servers found: run this from the project's folder")
	}
	r := newReport(os.Stdout)
	for _, m := range modules {
		if err == nil {
			err = m.run(ctx, env, r)
		}
	}
	r.print()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || !r.good() {
		return 1
	}
	return 0
}

// set is what there is to run in one module.
type set struct {
	folder          string
	packages, names []string
}

// run runs the tests of a module. What failed is in the report.
func (s set) run(ctx context.Context, env []string, r *report) error {
	args := []string{
		"test", "-C", s.folder, "-json", "-tags", "services", "-count=1", "-timeout=20m",
		"-run", "^(" + strings.Join(s.names, "|") + ")$",
	}
	cmd := exec.CommandContext(ctx, "go", append(args, s.packages...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	for {
		line, rerr := lines.ReadBytes('\n')
		r.line(line)
		if rerr != nil {
			break
		}
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 && r.failed > 0 {
		return nil // the other modules are run all the same
	}
	return err
}

// function finds the tests of a file.
var function = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// find lists what has tests of real servers, by module: that of root first, then
// those in folders below it.
func find(root string) ([]set, error) {
	modules := []set{{folder: root}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && d.IsDir() && path != root {
			modules = append(modules, set{folder: path})
		}
		if !strings.HasSuffix(path, suffix) {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m := &modules[0]
		for i := range modules {
			if strings.HasPrefix(path, modules[i].folder+string(filepath.Separator)) {
				m = &modules[i]
			}
		}
		for _, f := range function.FindAllSubmatch(src, -1) {
			m.names = append(m.names, string(f[1]))
		}
		in, err := filepath.Rel(m.folder, filepath.Dir(path))
		m.packages = append(m.packages, "./"+filepath.ToSlash(in))
		return err
	})
	for i := range modules {
		slices.Sort(modules[i].packages)
		slices.Sort(modules[i].names)
		modules[i].packages = slices.Compact(modules[i].packages)
		modules[i].names = slices.Compact(modules[i].names)
	}
	return slices.DeleteFunc(modules, func(m set) bool { return m.folder != root && len(m.packages) == 0 }), err
}
