package config

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oneComponent is a document with a component of that name and type.
func oneComponent(name, typ string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: " + typ + "}\n"
}

// TestStrangeFiles reads a folder with everything that can lie in one.
func TestStrangeFiles(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{
		"b.yaml": oneComponent("b", "x.y"), "a.YML": oneComponent("a", "x.y"), "notes.txt": "kind: [", "empty.yaml": "",
		"huge.yaml": strings.Repeat("# hello\n", maxFileBytes/8+1),
	})
	in := func(name string) string { return filepath.Join(folder, name) }
	for _, err := range []error{
		os.Mkdir(in("folder.yaml"), 0o700),
		os.Symlink(folder, in("linked-folder.yaml")),
		os.Symlink("b.yaml.gone", in("dangling.yaml")),
		os.Symlink("loop.yaml", in("loop.yaml")),
		syscall.Mkfifo(in("pipe.yaml"), 0o600),
		os.Symlink(in("b.yaml"), filepath.Join(folder, "notes.lnk")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", in("s.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()

	set, problems := Load(Options{Resources: []string{folder, in("missing")}, Configs: []string{folder}})
	var got []string
	for _, p := range problems {
		got = append(got, strings.ReplaceAll(p.String(), folder, "F"))
	}
	want := []string{
		"F: read file: it is a folder, not a regular file",
		"F/dangling.yaml: read file: it is a link to b.yaml.gone, which does not exist",
		"F/huge.yaml: read file: it is larger than 4 MiB; split it into several files",
		"F/loop.yaml: read file: too many levels of symbolic links",
		"F/pipe.yaml: read file: it is a named pipe, not a regular file",
		"F/s.yaml: read file: it is a socket, not a regular file",
		"F/missing: read resources: no such file or directory",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(set.Components) != 2 || set.Components[0].Name != "a" {
		t.Errorf("%+v", set.Components)
	}
	if diff := cmp.Diff([]string{in("a.YML"), in("b.yaml"), in("empty.yaml")}, set.Files); diff != "" {
		t.Error(diff)
	}
}

// TestHostileTexts holds the time that texts take which are slow to parse.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	keys := &bytes.Buffer{}
	for i := range 30_000 {
		keys.WriteString("k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + ": v\n")
	}
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", 1<<16), "dashes": strings.Repeat("- ", 1<<16), "questions": strings.Repeat("? ", 1<<16),
		"colons": strings.Repeat("a: ", 1<<16), "anchors": strings.Repeat("&a ", 1<<16), "tags": strings.Repeat("!a ", 1<<16),
		"quotes": strings.Repeat(`""`, 1<<16), "keys": keys.String(), "documents": strings.Repeat("---\n", 1<<16),
		"long line": "kind: " + strings.Repeat("x", 1<<21), "indents": indents(3000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := Parse("x.yaml", []byte(text), Options{})
			if len(problems) == 0 && name != "documents" && name != "long line" {
				t.Error("no problem")
			}
			if len(problems.Error()) > 1<<20 {
				t.Error("messages are too long")
			}
		})
	}
}

func TestHostileTextsTakeLittleMemory(t *testing.T) { // not parallel: measures memory
	for _, unit := range []string{"[", "a: ", "&a ", `""`, "-\n", "#\n"} {
		text := []byte(strings.Repeat(unit, maxFileBytes/len(unit)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, problems := Parse("x.yaml", text, Options{})
		runtime.ReadMemStats(&after)
		if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 128 || len(problems) == 0 {
			t.Errorf("%q: made %d MiB, %d problems", unit, made, len(problems))
		}
	}
}

func indents(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}
