package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const stream = `{"Action":"run","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal"}
{"Action":"output","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal","Output":"    x_test.go:9: server in use: redis at 127.0.0.1:1\n"}
{"Action":"run","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal/a"}
{"Action":"run","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal/b"}
{"Action":"pass","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal/a"}
{"Action":"pass","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal/b"}
{"Action":"pass","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal"}
{"Action":"run","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestFake"}
{"Action":"pass","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestFake"}
`

func read(text string) (*report, string) {
	var out strings.Builder
	r := newReport(&out)
	for line := range strings.Lines(text) {
		r.line([]byte(line))
	}
	r.print()
	return r, out.String()
}

func TestReportCountsCasesByServer(t *testing.T) {
	t.Parallel()
	r, out := read(stream)
	n := r.cases()
	if len(n) != 1 || n[row{"pubsub/x", "redis"}] != 2 {
		t.Errorf("cases are %v", n)
	}
	if !r.good() || !strings.HasSuffix(out, "2 passed, 0 failed, 0 skipped\n") {
		t.Errorf("good is %t after:\n%s", r.good(), out)
	}
}

func TestReportCountsCasesOfTheirOwnServer(t *testing.T) {
	t.Parallel()
	r, out := read(`{"Action":"run","Package":"p","Test":"TestX/a"}
{"Action":"output","Package":"p","Test":"TestX/a","Output":"    x_test.go:9: server in use: redis at 127.0.0.1:1\n"}
{"Action":"run","Package":"p","Test":"TestX/a/row"}
{"Action":"run","Package":"p","Test":"TestX/b/row"}
{"Action":"pass","Package":"p","Test":"TestX/a/row"}
{"Action":"pass","Package":"p","Test":"TestX/a"}
{"Action":"pass","Package":"p","Test":"TestX/b/row"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"| a table |\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t1.000s\n"}
{"Action":"pass","Package":"p"}
`)
	if n := r.cases(); len(n) != 1 || n[row{"p", "redis"}] != 1 {
		t.Errorf("cases are %v", n)
	}
	if !strings.HasPrefix(out, "| a table |\nok ") {
		t.Errorf("the package's own table is not before the line that it passed:\n%s", out)
	}
}

func TestReportFailsOnSkipsFailuresAndNothing(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"skip": stream + `{"Action":"skip","Package":"p","Test":"TestX"}`,
		"fail": stream + `{"Action":"output","Package":"p","Test":"TestX","Output":"why\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestX"}`,
		"none": `{"Action":"pass","Package":"p"}`,
	} {
		r, out := read(more)
		if r.good() {
			t.Errorf("%s: good after:\n%s", name, out)
		}
		if name == "fail" && !strings.Contains(out, "why\n") {
			t.Errorf("the failed test's output is not in:\n%s", out)
		}
	}
}

func TestCasesOfWatermillThatDoNotApplyAreCountedApart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TestX/watermill/many_lanes/TestNoAck/1", "TestWatermillOnServer/many_lanes/TestNoAck/1"} {
		r, out := read(stream + `{"Action":"skip","Package":"p","Test":"` + name + `"}`)
		if !r.good() || !strings.Contains(out, "\n1 cases of Watermill's suite") {
			t.Errorf("%s: good is %t after:\n%s", name, r.good(), out)
		}
	}
}

func TestWhatFailsIsRunOnceMore(t *testing.T) {
	t.Parallel()
	const fails = `{"Action":"output","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal","Output":"why\\n"}
{"Action":"fail","Package":"github.com/penstock-io/penstock/pubsub/x","Test":"TestReal"}
{"Action":"fail","Package":"github.com/penstock-io/penstock/pubsub/x"}
`
	for again, good := range map[string]bool{stream: true, fails: false} {
		var out strings.Builder
		r := newReport(&out)
		for line := range strings.Lines(fails) {
			r.line([]byte(line))
		}
		if got := r.again(); len(got) != 1 || got[0] != "github.com/penstock-io/penstock/pubsub/x" {
			t.Errorf("to be run again: %v", got)
		}
		for line := range strings.Lines(again) {
			r.line([]byte(line))
		}
		r.print()
		if r.good() != good || strings.Contains(out.String(), "FLAKY: github.com/penstock-io/penstock/pubsub/x") != good {
			t.Errorf("good is %t after:\n%s", r.good(), out.String())
		}
	}
}

func TestTestsOfServersAreFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/x_services_test.go":           "func TestOne(t *testing.T) {}\nfunc help() {}\n",
		"b/y_services_test.go":           "func TestTwo(t *testing.T) {}\n",
		"test/ledger/l_services_test.go": "func TestOne(t *testing.T) {}\n",
		"c/z_test.go":                    "func TestThree(t *testing.T) {}\n",
		"d/go.mod":                       "module d\n",
		"d/e/x_services_test.go":         "func TestFour(t *testing.T) {}\n",
		"f/go.mod":                       "module f\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := find(dir)
	want := set{[]string{"./test/ledger", "./a", "./b"}, []string{"TestOne", "TestTwo"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(set{})); diff != "" || err != nil {
		t.Errorf("found (-want +got)\n%s%v", diff, err)
	}
}

// TestWhatWasKilledIsPrinted: a test that never ends has no line of its own, and
// what was said when its package was killed is all that there is.
func TestWhatWasKilledIsPrinted(t *testing.T) {
	t.Parallel()
	r, out := read(stream + `{"Action":"run","Package":"p","Test":"TestHangs"}
{"Action":"output","Package":"p","Test":"TestHangs","Output":"goroutine 1 [select]:\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t900.000s\n"}
{"Action":"fail","Package":"p"}
`)
	if r.good() || !strings.Contains(out, "goroutine 1 [select]:\n") {
		t.Errorf("good is %t after:\n%s", r.good(), out)
	}
}
