package pluggable_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pluggable"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for _, name := range []string{"plug.sock", "Other.socket", "bare", "my.broker.sock", "cron.sock", "vault.sock"} {
		listen(t, filepath.Join(dir, name))
	}
	if err := os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	build := component.List{{Type: "bindings.cron", Versions: []string{"v1"}, About: component.About{Summary: "of the build"}}}
	missing := " (set DAPR_COMPONENTS_SOCKETS_FOLDER for another folder), which is not there"
	for typ, want := range map[string]string{
		"pubsub.plug": "", "bindings.plug": "", "Bindings.PLUG": "", "pubsub.other": "", "bindings.bare": "", "secretstores.vault": "", "state.vault": "",
		"pubsub.my.broker": "", "pubsub.cron": "", "bindings.cron": "",
		"bindings.crom":   `did you mean "bindings.cron"? As a pluggable component it needs its socket crom.sock in ` + dir + missing,
		"pubsub.none":     `unknown component type "pubsub.none"; see penstock describe for those that are known; as a pluggable component it needs its socket none.sock in ` + dir + missing,
		"pubsub.file":     "its socket file.sock in",
		"secretstores.no": "its socket no.sock in",
		"pubsub.folder":   "its socket folder.sock in",
		"pubsub.../plug":  "its socket ../plug.sock in",
		"state.none":      "its socket none.sock in",
		"conversation.ai": "see penstock describe for those that are known",
		"plug":            `unknown component type "plug"`,
	} {
		def, err := pluggable.New(build, dir).Find(typ, "v1")
		switch {
		case want == "" && (err != nil || !strings.EqualFold(def.Type, typ)):
			t.Errorf("%s: found %q, %v", typ, def.Type, err)
		case want != "" && (err == nil || fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v\nwant %s", typ, err, want)
		case typ == "bindings.cron" && def.About.Summary != "of the build":
			t.Errorf("the build's own is hidden by a socket: %+v", def.About)
		}
	}
	if _, err := pluggable.New(build, dir).Find("pubsub.plug", "v7"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("another version: %v", err)
	}
	if _, err := pluggable.New(build, filepath.Join(dir, "nowhere")).Find("pubsub.plug", ""); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no folder: %v", err)
	}
}

// A program removes its socket when it stops; its type must not become unknown
// because somebody edits a file meanwhile.
func TestFindRemembers(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := listen(t, socket(dir, "plug"))
	f := pluggable.New(nil, dir)
	for range 2 {
		if _, err := f.Find("pubsub.plug", "v1"); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}
