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
// have some, and prints which component ran how many cases on which server. A
// test that skipped is a failure: it would look as if it had run.
func tests(ctx context.Context, env, packages []string) int {
	found, names, err := find(".")
	if len(packages) == 0 {
		packages = found
	}
	if err == nil && len(packages) == 0 {
		err = errors.New("no tests of real servers found: run this from the project's folder")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	args := []string{
		"test", "-json", "-tags", "services", "-count=1", "-timeout=20m",
		"-run", "^(" + strings.Join(names, "|") + ")$",
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r := newReport(os.Stdout)
	lines := bufio.NewReader(out)
	for {
		line, rerr := lines.ReadBytes('\n')
		r.line(line)
		if rerr != nil {
			break
		}
	}
	err = cmd.Wait()
	r.print()
	if err != nil || !r.good() {
		return 1
	}
	return 0
}

// function finds the tests of a file.
var function = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// find lists the packages below root that have tests of real servers, and the
// names of those tests.
func find(root string) (packages, names []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !strings.HasSuffix(path, suffix) {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
		packages = append(packages, "./"+filepath.ToSlash(filepath.Dir(path)))
		return nil
	})
	slices.Sort(packages)
	slices.Sort(names)
	return slices.Compact(packages), slices.Compact(names), err
}
