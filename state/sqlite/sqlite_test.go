package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.State(t, Component, conform.StateSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"connectionString": filepath.Join(t.TempDir(), "x.db")}
		},
		Wrong: map[string]map[string]string{
			"tableName":         {"tableName": `state"; DROP TABLE x; --`},
			"metadataTableName": {"metadataTableName": "1st"},
		},
	})
}
