package house

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tracked lists the files that belong to the project, as git knows them.
func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Skip("needs git and a clone")
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(files) < 50 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

// kinds of files that may stand anywhere.
var kinds = map[string]bool{
	".go": true, ".md": true, ".yaml": true, ".mod": true, ".sum": true,
	".want": true, ".golden": true, ".txtar": true,
}

// others are the files of other kinds, or folders of such, each with its reason.
var others = map[string]string{
	".ci/run":                        "the one command of the build server",
	".gitignore":                     "for git",
	"Makefile":                       "the targets",
	"console/dist/":                  "the page of the console as it is served, made from its source",
	"console/web/":                   "the source of that page",
	"docs/dashboards/":               "dashboards, as Grafana imports them",
	"test/console/":                  "a browser that looks at the console",
	"examples/shop/":                 "payloads of providers for the demo",
	"test/interop/testdata/crypto/":  "documents that Dapr and Penstock have encrypted",
	"test/services/aws.py":           "the AWS server of the tests, made from moto",
	"test/services/azurite/":         "what npm fetches, with its sums",
	"test/services/kafka/":           "what Maven fetches, and its sums",
	"test/services/cassandra/":       "what Maven fetches, and its sums",
	"test/services/zipkin/":          "what Maven fetches, and its sums",
	"test/services/ferretdb/":        "a program with a module of its own, which is built where servers are kept",
	"test/services/vault/":           "a program with a module of its own, which is built where servers are kept",
	"test/services/requirements.txt": "what pip fetches, with its sums",
	"test/services/smtp.py":          "the SMTP server of the tests, made from aiosmtpd",
	"test/sdk/node/":                 "the official JavaScript SDK against the binary",
	"test/sdk/python/":               "the official Python SDK against the binary",
}

func TestNoOtherLanguages(t *testing.T) {
	t.Parallel()
	for _, f := range tracked(t) {
		data := strings.Contains(f, "/testdata/") && (path.Ext(f) == ".json" || path.Ext(f) == ".txt")
		if kinds[path.Ext(f)] || data || listed(f) {
			continue
		}
		t.Errorf("%s: files of this kind are not listed: write it in Go, or add it to others with the reason", f)
	}
}

func listed(f string) bool {
	for name := range others {
		if f == name || strings.HasSuffix(name, "/") && strings.HasPrefix(f, name) {
			return true
		}
	}
	return false
}

// machine finds paths that only one person's machine has.
var machine = regexp.MustCompile(`(^|[\s"'=:(\x60])(/(home|Users|root|work|mnt|media)/[A-Za-z0-9_.-]+|[A-Z]:\\+Users\\+)`)

func TestNoPathsOfAMachine(t *testing.T) {
	t.Parallel()
	for _, f := range tracked(t) {
		if f == "test/house/files_test.go" || strings.Contains(f, "/testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root(t), f))
		if err != nil {
			continue // removed and not committed yet
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := machine.FindString(line); m != "" {
				t.Errorf("%s:%d: %q is a path of one machine", f, i+1, strings.TrimSpace(m))
			}
		}
	}
}
