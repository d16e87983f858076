package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestPrepare(t *testing.T) {
	t.Parallel()
	conform.Prepared(t, openAt(t, filepath.Join(t.TempDir(), "bus.db")))
}
