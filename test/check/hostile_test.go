package check

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock-io/penstock/config"
)

// mistake is a wrong configuration that is made when it is needed: too big, or
// nothing that belongs into a repository.
type mistake struct {
	name string
	// make writes into the folder, which is then checked; it may return other
	// places to check, relative to the folder.
	make func(dir string) (resources []string, err error)
}

func write(name, text string) func(string) ([]string, error) {
	return func(dir string) ([]string, error) {
		return nil, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
}

const head = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: c}\nspec:\n  type: pubsub.in-memory\n  metadata:\n"

func hostile() []mistake {
	return []mistake{
		{"too-large-a-file", write("huge.yaml", head+strings.Repeat("#"+strings.Repeat(" filler", 100)+"\n", 6000))},
		{"too-many-words", write("words.yaml", head+strings.Repeat("    - {name: a, value: b}\n", 8000))},
		{"too-deep-flow", write("deep.yaml", "a: "+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+"\n")},
		{"too-deep-block", write("deep.yaml", deepBlock(200))},
		{"alias-bomb", write("bomb.yaml", bomb())},
		{"utf16", write("wide.yaml", "\xff\xfek\x00i\x00n\x00d\x00")},
		{"not-utf8", write("latin1.yaml", head+"    - {name: consumerID, value: caf\xe9}\n")},
		{"nul-byte", write("nul.yaml", head+"    - {name: consumerID, value: \"a\x00b\"}\n")},
		{"byte-order-mark-and-carriage-returns", write("windows.yaml", "\ufeff"+strings.ReplaceAll(head, "\n", "\r\n")+"    - {name: consumerId2, value: a}\r\n")},
		{"very-long-line", write("long.yaml", head+"    - {name: "+strings.Repeat("x", 5000)+", value: a}\n")},
		{"very-many-problems", write("many.yaml", strings.Repeat(head+"    - {nmae: a}\n---\n", 150))},
		{"named-pipe", func(dir string) ([]string, error) { return nil, syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600) }},
		{"dangling-link", func(dir string) ([]string, error) {
			return nil, os.Symlink("nowhere.yaml", filepath.Join(dir, "link.yaml"))
		}},
		{"link-to-itself", func(dir string) ([]string, error) {
			return nil, os.Symlink("loop.yaml", filepath.Join(dir, "loop.yaml"))
		}},
		{"link-to-a-device", func(dir string) ([]string, error) {
			return nil, os.Symlink("/dev/zero", filepath.Join(dir, "zero.yaml"))
		}},
		{"no-such-folder", func(string) ([]string, error) { return []string{"resorces"}, nil }},
	}
}

func deepBlock(levels int) string {
	var b strings.Builder
	for i := range levels {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// bomb doubles what an alias stands for on each line.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		from, to := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("a" + to + ": &a" + to + " [" + strings.TrimSuffix(strings.Repeat("*a"+from+", ", 10), ", ") + "]\n")
	}
	return b.String()
}

func TestHostileFiles(t *testing.T) {
	t.Parallel()
	for _, m := range hostile() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			names, err := m.make(dir)
			if err != nil {
				t.Fatal(err)
			}
			o := config.Options{AppID: "app", Resources: []string{dir}}
			if len(names) > 0 {
				o.Resources = nil
			}
			for _, n := range names {
				o.Resources = append(o.Resources, filepath.Join(dir, n))
			}
			got, sound := report(t, o)
			if sound {
				t.Errorf("nothing was found wrong:\n%s", got)
			}
			if len(got) > 128<<10 {
				t.Errorf("the report has %d bytes", len(got))
			}
			compare(t, filepath.Join("testdata", "hostile", m.name+".want"), strings.ReplaceAll(got, dir+string(filepath.Separator), ""))
		})
	}
}
