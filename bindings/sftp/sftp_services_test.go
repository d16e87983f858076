//go:build services

package sftp

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// openssh returns options for the real server, with a folder of their own.
func openssh(t *testing.T) map[string]string {
	t.Helper()
	u, err := url.Parse(services.Need(t, "sftp"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(u.Query().Get(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	root := filepath.Join(u.Path, conform.Unique(t))
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return map[string]string{
		"address": u.Host, "username": u.User.Username(), "privateKey": read("key"), "hostPublicKey": read("hostkey"), "rootPath": root,
	}
}

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	for _, after := range []string{move, del} {
		t.Run(after, func(t *testing.T) {
			suite(t, func(t *testing.T) map[string]string {
				o := openssh(t)
				o["after"] = after
				return o
			})
		})
	}
}

// TestLinksOnServer: what links lead to is known from the server, and those that
// lead out are refused.
func TestLinksOnServer(t *testing.T) {
	t.Parallel()
	o := openssh(t)
	root := o["rootPath"]
	outside := t.TempDir()
	for name, to := range map[string]string{"out": outside, "in": filepath.Join(root, "folder"), "secret": filepath.Join(outside, "secret")} {
		if err := os.MkdirAll(filepath.Join(root, "folder"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := opened(t, o, &component.Shared{}).(bindings.Invoker)
	invoke := func(operation, name string) error {
		_, err := out.Invoke(t.Context(), &bindings.Request{Operation: operation, Data: []byte("x"), Metadata: map[string]string{"fileName": name}})
		return err
	}
	for _, row := range [][2]string{{"get", "secret"}, {"get", "out/secret"}, {"create", "out/new"}, {"create", "out/a/b"}, {"delete", "out/secret"}, {"list", "out"}} {
		if err := invoke(row[0], row[1]); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s %s: %v, want an error of kind invalid", row[0], row[1], err)
		}
	}
	for _, row := range [][2]string{{"create", "in/new"}, {"get", "in/new"}, {"list", "in"}, {"delete", "in/new"}, {"create", "secret"}} {
		if err := invoke(row[0], row[1]); err != nil {
			t.Errorf("%s %s: %v", row[0], row[1], err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(text) != "hush" {
		t.Errorf("the file outside is %q (%v)", text, err)
	}
}

func TestSharedFolderOnServer(t *testing.T) {
	t.Parallel()
	shareFolder(t, openssh(t))
}
