package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// report is one call of onChange.
type report struct {
	set      *Set
	problems Problems
}

func (r report) String() string {
	var b strings.Builder
	for _, c := range r.set.Components {
		b.WriteString(c.Name + "=" + c.Type + " ")
	}
	for _, p := range r.problems {
		b.WriteString("!" + p.Text + " ")
	}
	return strings.TrimSpace(b.String())
}

// watching runs Watch until the test ends.
func watching(t *testing.T, o Options) (reports <-chan report) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ch := make(chan report, 100)
	var wg sync.WaitGroup
	wg.Go(func() { Watch(ctx, o, func(s *Set, ps Problems) { ch <- report{s, ps} }) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return ch
}

// until waits for a report that says want. Others may come before it, when the
// system is slow enough for a change to be seen half done.
func until(t *testing.T, reports <-chan report, want string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	last := "nothing"
	for {
		select {
		case r := <-reports:
			if last = r.String(); strings.HasPrefix(last, want) && (want != "" || last == "") {
				return
			}
		case <-deadline:
			t.Fatalf("last report is %q, want %q", last, want)
		}
	}
}

// must fails the test for the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// watched loads a folder and watches it from the moment it was loaded.
func watched(t *testing.T, o Options) <-chan report {
	t.Helper()
	set, problems := Load(o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	o.Last = set
	return watching(t, o)
}

func TestWatchFile(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"a.yaml": oneComponent("a", "x.one")})
	a := filepath.Join(folder, "a.yaml")
	reports := watched(t, Options{Resources: []string{folder}})

	put(t, a, oneComponent("a", "x.two"))
	until(t, reports, "a=x.two")
	put(t, a+".tmp", oneComponent("a", "x.three")) // as editors do
	must(t, os.Rename(a+".tmp", a))
	until(t, reports, "a=x.three")
	put(t, a, "kind: [\n")
	until(t, reports, "!YAML syntax: the list has no end")
	put(t, a, oneComponent("a", "x.three")) // repaired, as it was
	until(t, reports, "a=x.three")
	put(t, filepath.Join(folder, "b.yml"), oneComponent("b", "x.y"))
	until(t, reports, "a=x.three b=x.y")
	must(t, os.Remove(a))
	until(t, reports, "b=x.y")
}

func TestWatchSaysNothingWithoutAChange(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"a.yaml": oneComponent("a", "x.one")})
	reports := watched(t, Options{Resources: []string{folder}, Interval: 20 * time.Millisecond})
	now := time.Now()
	must(t, os.Chtimes(filepath.Join(folder, "a.yaml"), now, now))
	put(t, filepath.Join(folder, "a.yaml"), oneComponent("a", "x.one"))
	put(t, filepath.Join(folder, "notes.txt"), "x")
	put(t, filepath.Join(folder, "z.yaml"), oneComponent("z", "x.y"))
	until(t, reports, "a=x.one z=x.y")
	select {
	case r := <-reports:
		t.Errorf("second report %q", r)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestWatchSymlinkSwap(t *testing.T) {
	t.Parallel()
	// A mounted ConfigMap: files are links into "..data", a link to a folder
	// whose name changes.
	folder := t.TempDir()
	version := func(name, typ string) {
		must(t, os.Mkdir(filepath.Join(folder, name), 0o700))
		put(t, filepath.Join(folder, name, "a.yaml"), oneComponent("a", typ))
		must(t, os.Symlink(name, filepath.Join(folder, "..new")))
		must(t, os.Rename(filepath.Join(folder, "..new"), filepath.Join(folder, "..data")))
	}
	version("..v1", "x.one")
	must(t, os.Symlink(filepath.Join("..data", "a.yaml"), filepath.Join(folder, "a.yaml")))
	reports := watched(t, Options{Resources: []string{folder}})
	version("..v2", "x.two")
	until(t, reports, "a=x.two")
	version("..v3", "x.three")
	until(t, reports, "a=x.three")
}

func TestWatchFolderComesBack(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	folder := filepath.Join(base, "resources")
	must(t, os.Mkdir(folder, 0o700))
	put(t, filepath.Join(folder, "a.yaml"), oneComponent("a", "x.one"))
	reports := watched(t, Options{Resources: []string{folder}})
	must(t, os.RemoveAll(folder))
	until(t, reports, "!read resources: no such file or directory")
	must(t, os.Mkdir(folder, 0o700))
	until(t, reports, "")
	put(t, filepath.Join(folder, "a.yaml"), oneComponent("a", "x.two"))
	until(t, reports, "a=x.two")
}

func TestWatchLinkedFolder(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	in := func(name ...string) string { return filepath.Join(append([]string{base}, name...)...) }
	must(t, os.Mkdir(in("one"), 0o700), os.Mkdir(in("two"), 0o700), os.Symlink("one", in("now")))
	put(t, in("one", "a.yaml"), oneComponent("a", "x.one"))
	put(t, in("two", "a.yaml"), oneComponent("a", "x.two"))
	reports := watched(t, Options{Resources: []string{in("now")}})
	must(t, os.Symlink("two", in("next")), os.Rename(in("next"), in("now")))
	until(t, reports, "a=x.two")
	put(t, in("two", "a.yaml"), oneComponent("a", "x.three"))
	until(t, reports, "a=x.three")
}

func TestWatchConfigurationFile(t *testing.T) {
	t.Parallel()
	head := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {components: {deny: ["
	folder := write(t, map[string]string{"c.yaml": head + "a]}}\n"})
	reports := watched(t, Options{Configs: []string{filepath.Join(folder, "c.yaml")}})
	put(t, filepath.Join(folder, "c.yaml"), head+"b]}}\n")
	r := <-reports
	for len(r.set.Configuration.Denied) == 0 {
		r = <-reports // seen half written
	}
	if got := r.set.Configuration.Denied[0]; got != "b" {
		t.Error(got)
	}
}

// TestWatchSinceLast holds that a change between loading and watching is seen,
// and that {uuid} stays what it was.
func TestWatchSinceLast(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"a.yaml": oneComponent("a", "x.one")})
	o := Options{Resources: []string{folder}, UUID: "u"}
	o.Last, _ = Load(o)
	put(t, filepath.Join(folder, "a.yaml"), oneComponent("a", "x.two")+"---\n"+
		strings.Replace(oneComponent("b", "x.y"), "x.y", `x.y, metadata: [{name: n, value: "{uuid}"}]`, 1))
	r := <-watching(t, o)
	if got := r.String(); got != "a=x.two b=x.y" || r.set.Components[1].Metadata[0].Value != "u" {
		t.Error(got)
	}
}

func TestWatchPolls(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"a.yaml": oneComponent("a", "x.one")})
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan report, 10)
	w := watcher{
		o:        Options{Resources: []string{folder}, Interval: 5 * time.Millisecond, UUID: "u"},
		onChange: func(s *Set, ps Problems) { reports <- report{s, ps} },
	}
	w.begin()
	var wg sync.WaitGroup
	wg.Go(func() { w.run(ctx, nil, nil) }) // as on a system without events
	put(t, filepath.Join(folder, "a.yaml"), oneComponent("a", "x.two"))
	until(t, reports, "a=x.two")
	cancel()
	wg.Wait()
}
