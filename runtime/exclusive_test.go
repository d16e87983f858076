package runtime_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// alone is a cron binding that one replica reads, with the lock in a file.
func alone(file string) string {
	return fmt.Sprintf(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.sqlite, version: v1, metadata: [{name: connectionString, value: %q}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec:
  type: bindings.cron
  version: v1
  metadata: [{name: schedule, value: "@every 1s"}, {name: exclusive, value: locks}]
---
`, file)
}

// Of two replicas one gets the ticks; when it ends the other does.
func TestExclusiveInput(t *testing.T) {
	t.Parallel()
	documents := alone(filepath.Join(t.TempDir(), "locks.db"))
	first, second := newApp(t, `[]`), newApp(t, `[]`)
	one := start(t, first, documents)
	first.next(t, "/tick")
	start(t, second, documents)
	for range 3 {
		first.next(t, "/tick")
	}
	if n := len(second.calls); n > 0 {
		t.Fatalf("the second replica got %d ticks beside the first", n)
	}
	stopped := time.Now()
	if err := one.end(); err != nil {
		t.Fatal(err)
	}
	second.next(t, "/tick")
	t.Logf("taken over after %v", time.Since(stopped))
	if !strings.Contains(one.log.String(), "Reading alone") {
		t.Error("the log does not tell who reads")
	}
}

// A lock store that may fail and does: nobody reads, and the log says why.
func TestExclusiveWithoutItsStore(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	documents := strings.Replace(alone("/proc/no/locks.db"), "lock.sqlite, version: v1, metadata", "lock.sqlite, version: v1, ignoreErrors: true, metadata", 1)
	in := start(t, a, documents)
	in.logged(t, 1, `find lock store`)
}
