package file

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(t *testing.T) map[string]string {
			path := filepath.Join(t.TempDir(), "secrets.json")
			write(t, path, `{"plain":"x","db":{"user":"u","password":"p"}}`, time.Now())
			return map[string]string{"secretsFile": path, "multiValued": "true"}
		},
		Wrong:   map[string]map[string]string{"multiValued": {"multiValued": "perhaps"}},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "db": {"user": "u", "password": "p"}},
		Missing: "db:user",
	})
}
