package main

import (
	"bufio"
	"cmp"
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

// sideBySide is how many packages are tested at the same time: they mostly wait.
const sideBySide = "4"

// tests runs the tests of real servers, of the packages given or of all that
// have some, and prints which component ran how many cases on which server. A
// package that fails is run once more, alone: it is named when it passes then. A
// test that skipped is a failure: it would look as if it had run.
func tests(ctx context.Context, env, packages []string) int {
	began := time.Now()
	all, err := find(".")
	if len(packages) > 0 {
		all.packages = packages
	}
	if err == nil && len(all.packages) == 0 {
		err = errors.New("no tests of real servers found: run this from the project's folder")
	}
	r := newReport(os.Stdout)
	if err == nil {
		err = all.run(ctx, env, r, sideBySide)
	}
	if again := r.again(); err == nil && len(again) > 0 {
		fmt.Printf("\nonce more, one after the other: %s\n", strings.Join(again, " "))
		all.packages = again
		err = all.run(ctx, env, r, "1")
	}
	r.print()
	fmt.Printf("the tests took %.0f s\n", time.Since(began).Seconds())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || !r.good() {
		return 1
	}
	return 0
}

// set is what there is to run.
type set struct {
	packages, names []string
}

// run runs the tests, so many packages at the same time. What failed is in the
// report.
func (s set) run(ctx context.Context, env []string, r *report, atOnce string) error {
	args := []string{
		"test", "-json", "-tags", "services,grpcnotrace", "-count=1", "-timeout=15m", "-p", atOnce,
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
	if s := cmd.ProcessState; s != nil {
		fmt.Printf("the tests used %.0f s of a processor, without the servers that they share\n", (s.UserTime() + s.SystemTime()).Seconds())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 && r.failed() {
		return nil
	}
	return err
}

// function finds the tests of a file.
var function = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// find lists what has tests of real servers. Modules of their own below root are
// left out.
func find(root string) (all set, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && d.IsDir() && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, suffix) {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, f := range function.FindAllSubmatch(src, -1) {
			all.names = append(all.names, string(f[1]))
		}
		in, err := filepath.Rel(root, filepath.Dir(path))
		all.packages = append(all.packages, "./"+filepath.ToSlash(in))
		return err
	})
	slices.Sort(all.names)
	slices.SortFunc(all.packages, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return set{slices.Compact(all.packages), slices.Compact(all.names)}, err
}

// rank puts what takes longest in front, so that the others are tested beside it.
func rank(pkg string) int {
	if i := slices.Index([]string{"./test/ledger", "./pubsub/kafka"}, pkg); i >= 0 {
		return i
	}
	return 2
}
