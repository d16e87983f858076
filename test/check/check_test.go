package check

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/runtime"
)

// wanted is how many wrong configurations there must at least be.
const wanted = 60

// update writes what is reported into the .want files; read the difference
// before you commit it.
var update = flag.Bool("update", false, "write the .want files anew")

// cases lists the wrong configurations below testdata/wrong: a file, or a
// folder with resources and config.yaml.
func cases(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata/wrong")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".want" {
			names = append(names, e.Name())
		}
	}
	return names
}

// options reads one case. Lines "# env: NAME=value" at the top of a file give
// it an environment.
func options(t *testing.T, name string) config.Options {
	t.Helper()
	path := filepath.Join("testdata", "wrong", name)
	o := config.Options{AppID: "app", Resources: []string{path}}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		o.Resources = []string{filepath.Join(path, "resources")}
		o.Configs = []string{filepath.Join(path, "config.yaml")}
		return o
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		pair, ok := strings.CutPrefix(line, "# env: ")
		if !ok {
			break
		}
		k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		env[k] = v
	}
	o.Env = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	return o
}

// report is what `penstock check` prints.
func report(t *testing.T, o config.Options) (text string, sound bool) {
	t.Helper()
	var b bytes.Buffer
	sound, err := runtime.Report(&b, all.Components(), o)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), sound
}

// compare holds a report against a .want file.
func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run go test ./test/check -update and read what it writes", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the report is another (-want +got):\n%s", diff)
	}
}

func TestEveryMistakeIsExplained(t *testing.T) {
	t.Parallel()
	for _, name := range cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, sound := report(t, options(t, name))
			if sound {
				t.Errorf("nothing was found wrong:\n%s", got)
			}
			base := strings.TrimSuffix(name, filepath.Ext(name))
			compare(t, filepath.Join("testdata", "wrong", base+".want"), got)
		})
	}
}

func TestThereAreEnoughMistakes(t *testing.T) {
	t.Parallel()
	n := len(cases(t)) + len(hostile())
	if n < wanted {
		t.Errorf("%d wrong configurations, want at least %d", n, wanted)
	}
	t.Logf("%d wrong configurations", n)
}

// TestNoWantIsLeftOver finds .want files whose case has gone.
func TestNoWantIsLeftOver(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, name := range cases(t) {
		have[strings.TrimSuffix(name, filepath.Ext(name))] = true
	}
	wants, err := filepath.Glob("testdata/wrong/*.want")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wants {
		if base := strings.TrimSuffix(filepath.Base(w), ".want"); !have[base] {
			t.Errorf("%s has no case", w)
		}
	}
}

// TestEveryMistakeAtOnce puts all files into one folder: what is reported for
// each of them alone must be reported again, in the order of the files.
func TestEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	got, sound := report(t, config.Options{AppID: "app", Resources: []string{"testdata/wrong"}})
	if sound {
		t.Fatal("nothing was found wrong")
	}
	at := 0
	for _, name := range cases(t) {
		if filepath.Ext(name) != ".yaml" {
			continue
		}
		place := "\n" + filepath.Join("testdata", "wrong", name) + ":"
		next := strings.Index("\n"+got, place)
		switch {
		case next < 0:
			t.Errorf("nothing is said about %s", name)
		case next < at:
			t.Errorf("%s is not in its turn", name)
		}
		at = max(at, next)
	}
}

// TestGoodConfigurations holds that what is right is not complained about: a
// check that calls everything wrong would pass the tests above.
func TestGoodConfigurations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	slices.Sort(files)
	got, _ := report(t, config.Options{AppID: "app", Resources: []string{"testdata/good"}})
	compare(t, "testdata/good.want", got)
	if strings.Contains(got, "^") {
		t.Errorf("something right is called wrong:\n%s", got)
	}
}
