package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/test/services"
)

// event is one line of "go test -json".
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// key is a test of a package.
type key struct{ pkg, test string }

// row is a component on a server.
type row struct{ component, server string }

// report counts the cases that passed, by component and server.
type report struct {
	out     io.Writer
	servers map[key]map[string]bool // by test: what it asked for
	parents map[key]bool            // tests that have cases of their own
	passed  []key
	skipped []key
	broken  map[key]bool // what failed last
	flaky   []string     // packages that passed when they were run again
	// inapplicable are cases of Watermill's suite for what a broker does not do.
	inapplicable int
	outputs      map[key]*strings.Builder
}

func newReport(out io.Writer) *report {
	return &report{out: out, servers: map[key]map[string]bool{}, parents: map[key]bool{}, broken: map[key]bool{}, outputs: map[key]*strings.Builder{}}
}

// line takes a line of the stream; what is not an event, such as the words of a
// compiler, is printed.
func (r *report) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "run":
		if around, ok := k.parent(); ok {
			r.parents[around] = true
		}
	case "output", "build-output":
		r.output(k, e.Output)
	case "pass":
		if e.Test != "" {
			r.passed = append(r.passed, k)
		} else {
			r.tables(k)
			fmt.Fprintf(r.out, "ok    %6.1f s  %s\n", e.Elapsed, e.Package)
		}
		delete(r.outputs, k)
	case "skip":
		r.skip(k)
	case "fail", "build-fail":
		r.fail(k)
	}
}

func (r *report) output(k key, text string) {
	if _, name, ok := strings.Cut(text, services.InUse); ok {
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if r.servers[k] == nil {
			r.servers[k] = map[string]bool{}
		}
		r.servers[k][name] = true
	}
	if r.outputs[k] == nil {
		r.outputs[k] = &strings.Builder{}
	}
	r.outputs[k].WriteString(text)
}

// fail prints what a test said, or a package with those of its tests that never
// ended: what stands in the output of one that was killed is theirs.
func (r *report) fail(k key) {
	r.broken[k] = true
	of := []key{k}
	if k.test == "" {
		for o := range r.outputs {
			if o.pkg == k.pkg && o != k {
				of = append(of, o)
			}
		}
		slices.SortFunc(of[1:], func(a, b key) int { return strings.Compare(a.test, b.test) })
	}
	for _, o := range of {
		if b := r.outputs[o]; b != nil {
			fmt.Fprint(r.out, b.String())
		}
		delete(r.outputs, o)
	}
}

// failed tells whether anything did.
func (r *report) failed() bool { return len(r.broken) > 0 }

// again lists the packages that failed, to be run once more, and forgets what
// is known of them.
func (r *report) again() []string {
	all := map[string]bool{}
	for k := range r.broken {
		if k.pkg != "" { // what a compiler says has none
			all[k.pkg] = true
		}
	}
	of := func(k key) bool { return all[k.pkg] }
	maps.DeleteFunc(r.broken, func(k key, _ bool) bool { return of(k) })
	maps.DeleteFunc(r.outputs, func(k key, _ *strings.Builder) bool { return of(k) })
	r.passed, r.skipped = slices.DeleteFunc(r.passed, of), slices.DeleteFunc(r.skipped, of)
	r.flaky = slices.Sorted(maps.Keys(all))
	return r.flaky
}

// skip counts a test that skipped. A package without a test to run is one too:
// its tests were asked for. Watermill's own suite skips the cases of features
// that its setup says a broker does not have (no order, no replay of old
// messages): they are counted apart, by the name of the test that runs the suite.
func (r *report) skip(k key) {
	if suite, _, ok := strings.Cut(k.test, "/Test"); ok && strings.Contains(strings.ToLower(suite), "watermill") {
		r.inapplicable++
		return
	}
	r.skipped = append(r.skipped, k)
	fmt.Fprintln(r.out, "SKIP ", k.pkg, k.test)
	if b := r.outputs[k]; b != nil {
		fmt.Fprint(r.out, b.String())
	}
	delete(r.outputs, k)
}

// tables prints what a package has to say after its tests, such as a table of
// its own.
func (r *report) tables(k key) {
	b := r.outputs[k]
	if b == nil {
		return
	}
	for line := range strings.Lines(b.String()) {
		if line != "PASS\n" && !strings.HasPrefix(line, "ok  \t") {
			fmt.Fprint(r.out, line)
		}
	}
}

// cases counts a case for each server that it, or a test around it, asked for.
func (r *report) cases() map[row]int {
	n := map[row]int{}
	for _, k := range r.passed {
		if r.parents[k] {
			continue
		}
		used := map[string]bool{}
		for around, ok := k, true; ok; around, ok = around.parent() {
			maps.Copy(used, r.servers[around])
		}
		for server := range used {
			n[row{strings.TrimPrefix(k.pkg, module), server}]++
		}
	}
	return n
}

// parent is the test around a test.
func (k key) parent() (key, bool) {
	i := strings.LastIndexByte(k.test, '/')
	if i < 0 {
		return key{}, false
	}
	return key{k.pkg, k.test[:i]}, true
}

const module = "github.com/penstock-io/penstock/"

// good tells whether tests ran, all passed and none skipped.
func (r *report) good() bool { return !r.failed() && len(r.skipped) == 0 && len(r.passed) > 0 }

// print writes the table and the sum.
func (r *report) print() {
	n := r.cases()
	rows := slices.SortedFunc(maps.Keys(n), func(a, b row) int {
		return strings.Compare(a.component+" "+a.server, b.component+" "+b.server)
	})
	fmt.Fprintf(r.out, "\n%-28s %-12s %6s\n", "component", "server", "cases")
	sum := 0
	for _, k := range rows {
		fmt.Fprintf(r.out, "%-28s %-12s %6d\n", k.component, k.server, n[k])
		sum += n[k]
	}
	fmt.Fprintf(r.out, "%d cases of Watermill's suite are for what the broker does not promise\n", r.inapplicable)
	for _, pkg := range r.flaky {
		if !r.brokenIn(pkg) {
			fmt.Fprintf(r.out, "FLAKY: %s passed the second time only; see above what failed first\n", pkg)
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", sum, len(r.broken), len(r.skipped))
}

func (r *report) brokenIn(pkg string) bool {
	for k := range r.broken {
		if k.pkg == pkg {
			return true
		}
	}
	return false
}
