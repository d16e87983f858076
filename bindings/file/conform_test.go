package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	var n atomic.Int64
	feed := func(t *testing.T, options map[string]string, bodies ...string) {
		t.Helper()
		for _, body := range bodies {
			name := filepath.Join(options["path"], fmt.Sprintf("file%04d", n.Add(1)))
			if err := errors.Join(os.WriteFile(name+".tmp", []byte(body), 0o600), os.Rename(name+".tmp", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range [][2]string{{whole, move}, {whole, del}, {whole, keep}, {lines, move}} {
		mode, after := row[0], row[1]
		t.Run(mode+" "+after, func(t *testing.T) {
			conform.Binding(t, Component, conform.BindingSetup{
				Options: func(t *testing.T) map[string]string {
					return map[string]string{
						"path": t.TempDir(), "mode": mode, "after": after, "stableFor": "5ms", "interval": "20ms", "maxLineSize": "2Mi",
					}
				},
				Wrong: map[string]map[string]string{
					"mode": {"mode": "half"}, "after": {"after": "burn"}, "pattern": {"pattern": "a/b"}, "doneDir": {"doneDir": "/tmp"},
					"maxFileSize": {"maxFileSize": "much"}, "stableFor": {"stableFor": "-1s"},
				},
				Feed: feed,
			})
		})
	}
}
