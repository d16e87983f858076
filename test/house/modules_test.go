package house

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write modules.golden anew")

// linked runs `go list` for what is in the binary, with a format.
func linked(t *testing.T, format string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./cmd/penstock")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := strings.Fields(string(out))
	slices.Sort(lines)
	return slices.Compact(lines)
}

// TestLinkedModules keeps a new dependency from coming in unseen.
func TestLinkedModules(t *testing.T) {
	t.Parallel()
	got := strings.Join(linked(t, "{{with .Module}}{{.Path}}{{end}}"), "\n") + "\n"
	if *update {
		if err := os.WriteFile("modules.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("modules.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the binary links other modules than before; if that is meant, run\n\tgo test ./test/house -run TestLinkedModules -update\n(-want +got):\n%s", diff)
	}
}

// TestNothingOfTestsIsLinked keeps test helpers and their flags out of the
// binary.
func TestNothingOfTestsIsLinked(t *testing.T) {
	t.Parallel()
	packages := linked(t, "{{.ImportPath}}")
	if len(packages) < 100 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, p := range packages {
		if p == "testing" || strings.HasPrefix(p, "testing/") || p == "net/http/httptest" || strings.HasPrefix(p, module+"/test/") || strings.HasPrefix(p, module+"/examples/") {
			t.Errorf("%s is linked into the binary: find who imports it with\n\tgo list -deps -f '{{.ImportPath}}: {{.Imports}}' ./cmd/penstock", p)
		}
	}
}
