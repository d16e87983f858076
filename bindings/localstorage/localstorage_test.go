package localstorage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opened(t *testing.T, root string) *binding {
	t.Helper()
	d, err := open(t.Context(), component.Env{}, options{RootPath: root, MaxFileSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*binding)
}

func invoke(t *testing.T, b *binding, operation, name, data string) (string, error) {
	t.Helper()
	meta := map[string]string{}
	if name != "" {
		meta["fileName"] = name
	}
	resp, err := b.Invoke(t.Context(), &bindings.Request{Operation: operation, Data: []byte(data), Metadata: meta})
	if resp == nil {
		return "", err
	}
	return string(resp.Data), err
}

func must(t *testing.T, b *binding, operation, name, data, want string) {
	t.Helper()
	if got, err := invoke(t, b, operation, name, data); err != nil || got != want {
		t.Fatalf("%s %q = %q, %v; want %q", operation, name, got, err, want)
	}
}

func TestLifeOfAFile(t *testing.T) {
	t.Parallel()
	b := opened(t, filepath.Join(t.TempDir(), "made", "below"))
	must(t, b, "list", "", "", "[]")
	must(t, b, "create", "a/b/c.txt", "one", `{"fileName":"a/b/c.txt"}`)
	must(t, b, "get", "a/b/c.txt", "", "one")
	must(t, b, "create", "a/b/c.txt", "two\xff\x00", `{"fileName":"a/b/c.txt"}`)
	must(t, b, "get", "a/b/c.txt", "", "two\xff\x00")
	must(t, b, "create", "a/..x", "", `{"fileName":"a/..x"}`)
	must(t, b, "get", "a/..x", "", "")
	must(t, b, "list", "", "", `["a/..x","a/b/c.txt"]`)
	must(t, b, "list", "a/b", "", `["a/b/c.txt"]`)
	must(t, b, "delete", "a/b/c.txt", "", "")
	must(t, b, "list", "", "", `["a/..x"]`)
	if names, err := filepath.Glob(filepath.Join(b.root.Name(), "a", "*", tempMark+"*")); err != nil || len(names) > 0 {
		t.Fatalf("left over: %v, %v", names, err)
	}
}

func TestMadeUpName(t *testing.T) {
	t.Parallel()
	b := opened(t, t.TempDir())
	answer, err := invoke(t, b, "create", "", "data")
	var got struct{ FileName string }
	if err != nil || json.Unmarshal([]byte(answer), &got) != nil {
		t.Fatalf("create = %q, %v", answer, err)
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if !uuid.MatchString(got.FileName) {
		t.Fatalf("made up %q, want a UUID", got.FileName)
	}
	must(t, b, "get", got.FileName, "", "data")
}

// trapped makes a folder with links that lead out of it, a folder, a file and a
// file that is too big, beside a folder with a secret.
func trapped(t *testing.T) (b *binding, outside, root string) {
	t.Helper()
	outside, root = t.TempDir(), t.TempDir()
	b = opened(t, root)
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"out": outside, "up": "../" + filepath.Base(outside), "loop": "loop", "file": filepath.Join(outside, "secret"),
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, b, "create", "plain", "x", `{"fileName":"plain"}`)
	must(t, b, "create", "big", strings.Repeat("x", 1<<20+1), `{"fileName":"big"}`)
	return b, outside, root
}

func TestRefused(t *testing.T) {
	t.Parallel()
	b, outside, root := trapped(t)
	all := []string{"create", "get", "list", "delete"}
	rows := []struct {
		name, file string
		operations []string
		kind       fault.Kind
	}{
		{"parent", "..", all, fault.Invalid},
		{"climbing", "../secret", all, fault.Invalid},
		{"climbing in the middle", "a/../../secret", all, fault.Invalid},
		{"climbing inside", "a/../plain", all, fault.Invalid},
		{"absolute", "/etc/passwd", all, fault.Invalid},
		{"absolute within", filepath.Join(root, "plain"), all, fault.Invalid},
		{"zero byte", "a\x00b", all, fault.Invalid},
		{"long part", strings.Repeat("x", 256), all, fault.Invalid},
		{"10 KB", strings.Repeat("abcdefg/", 1280), all, fault.Invalid},
		{"our temporary names", "a/" + tempMark + "x", all, fault.Invalid},
		{"through a link out", "out/secret", all, fault.Invalid},
		{"through a relative link out", "up/secret", all, fault.Invalid},
		{"a link to a file outside", "file", []string{"get", "list"}, fault.Invalid},
		{"a link to itself", "loop", []string{"get", "list"}, fault.Invalid},
		{"a link to itself as a folder", "loop/x", all, fault.Invalid},
		{"the root", ".", []string{"create", "get", "delete"}, fault.Invalid},
		{"a folder", "folder", []string{"create", "get", "delete"}, fault.Invalid},
		{"below a file", "plain/x", all, fault.Invalid},
		{"a file as a folder", "plain", []string{"list"}, fault.Invalid},
		{"too big", "big", []string{"get"}, fault.Invalid},
		{"missing name", "", []string{"get", "delete"}, fault.Invalid},
		{"missing file", "none", []string{"get", "delete", "list"}, fault.NotFound},
		{"unknown operation", "plain", []string{"append", "", "CREATE"}, fault.Invalid},
	}
	for _, row := range rows {
		for _, operation := range row.operations {
			t.Run(row.name+" "+operation, func(t *testing.T) {
				got, err := invoke(t, b, operation, row.file, "data")
				if err == nil || fault.KindOf(err) != row.kind || len(err.Error()) > 300 {
					t.Fatalf("%s = %q, %v (kind %v); want a short error of kind %v", operation, got, err, fault.KindOf(err), row.kind)
				}
			})
		}
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(data) != "secret" {
		t.Fatalf("the file outside is now %q, %v", data, err)
	}
	must(t, b, "get", "plain", "", "x")
}

func TestLinksOutsideAreReplacedNotFollowed(t *testing.T) {
	t.Parallel()
	target := filepath.Join(t.TempDir(), "target")
	root := t.TempDir()
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"made", "removed"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := opened(t, root)
	must(t, b, "create", "made", "new", `{"fileName":"made"}`)
	must(t, b, "delete", "removed", "", "")
	must(t, b, "get", "made", "", "new")
	if data, err := os.ReadFile(target); err != nil || string(data) != "old" {
		t.Fatalf("the file outside is now %q, %v", data, err)
	}
}

// TestReadersSeeWholeFiles writes one name from many goroutines while others
// read it.
func TestReadersSeeWholeFiles(t *testing.T) {
	t.Parallel()
	b := opened(t, t.TempDir())
	must(t, b, "create", "f", strings.Repeat("0", 10_000), `{"fileName":"f"}`)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				data := bytes.Repeat(fmt.Append(nil, i), 10_000)
				if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"fileName": "f"}}); err != nil {
					t.Error(err)
				}
				resp, err := b.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: map[string]string{"fileName": "f"}})
				if err != nil {
					t.Error(err)
				} else if len(resp.Data) != 10_000 || bytes.Count(resp.Data, resp.Data[:1]) != 10_000 {
					t.Errorf("read a torn file of %d bytes", len(resp.Data))
				}
			}
		})
	}
	wg.Wait()
	must(t, b, "list", "", "", `["f"]`)
}

func TestClosedAndCancelled(t *testing.T) {
	t.Parallel()
	b := opened(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Invoke(ctx, &bindings.Request{Operation: "create"}); fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("cancelled: %v", err)
	}
	for range 2 {
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := invoke(t, b, "create", "x", ""); err == nil || fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("after Close: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), component.Env{}, options{RootPath: file}); err == nil {
		t.Fatal("opened a file as a folder")
	}
	if err := (options{RootPath: "x"}).Check(); err == nil || !strings.Contains(err.Error(), "maxFileSize") {
		t.Fatalf("Check: %v", err)
	}
	if diff := cmp.Diff(Component.About.Operations, (&binding{}).Operations()); diff != "" {
		t.Fatal(diff)
	}
}

func FuzzCheckName(f *testing.F) {
	for _, seed := range []string{"a", "../a", "a/../b", "/a", "a\x00", ".", "a//b", `..\a`, "a/./b", "..."} {
		f.Add(seed)
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) != nil {
			return
		}
		rel, err := filepath.Rel(root, filepath.Join(root, name))
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			t.Fatalf("%q leads to %q", name, rel)
		}
	})
}
