package runtime_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const settingsStore = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.file, version: v1, metadata: [{name: path, value: DIR/settings.json}]}
---
`

// The app is told of every change of the items that it subscribed to, again
// after it refused one, until it unsubscribes.
func TestConfigurationUpdates(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	refuse := make(chan struct{}, 1)
	refuse <- struct{}{}
	a.answer("/configuration/settings/colour", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-refuse:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	in, o := prepare(t, a, settingsStore)
	file := filepath.Join(in.dir, "settings.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"colour":{"value":"blue","version":"1"},"size":"small"}`)
	in.run(t, o)
	if got := in.text(t, "/configuration/settings?key=colour&key=never"); got != `{"colour":{"value":"blue","version":"1"}}` {
		t.Errorf("got %s", got)
	}
	answer := in.text(t, "/configuration/settings/subscribe?key=colour")
	id, _, _ := strings.Cut(strings.TrimPrefix(answer, `{"id":"`), `"`)
	if len(id) != 36 {
		t.Fatalf("subscribe: %s", answer)
	}
	write(`{"colour":{"value":"green","version":"2"},"size":"large"}`)
	for range 2 { // the first is refused
		if got := a.next(t, "/configuration/settings/colour"); !strings.Contains(got.body, `"green"`) || !strings.Contains(got.body, id) {
			t.Errorf("the app is told %s", got.body)
		}
	}
	if got := in.text(t, "/configuration/settings/"+id+"/unsubscribe"); got != `{"ok":true}` {
		t.Errorf("unsubscribe: %s", got)
	}
}
