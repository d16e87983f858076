package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMutants runs penstock with brokers that do wrong. The ledger must tell of
// each what it did; a mutant that passes is a hole in the ledger.
func TestMutants(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	quiet := row{name: "quiet", do: func(*run) { wait(2 * time.Second) }}
	many := row{name: "many", rate: 800, do: func(x *run) {
		eventually(time.Minute, func() bool { promised, _ := x.keeper.Counts(); return promised > 2000 })
	}}
	fails := row{name: "app answers 500", policy: noLetters, do: appFails}
	killed := row{name: "killed", do: func(x *run) {
		x.app.work.Store(int64(250 * time.Millisecond))
		kills(x)
		x.app.work.Store(int64(time.Millisecond))
	}}
	stopped := row{name: "stopped", do: func(x *run) {
		x.app.work.Store(int64(250 * time.Millisecond))
		wait(2 * time.Second)
		x.stop(x.sidecars[0])
		x.app.work.Store(int64(time.Millisecond))
		x.start(x.sidecars[0])
	}}
	for _, m := range []struct {
		kind string
		row  row
		want string // the beginning of one of the problems
	}{
		{"none", quiet, ""},
		{"none", many, ""},
		{"none", stopped, ""},
		{"ack early", fails, "acknowledged early"},
		{"ack early", killed, "lost"},
		{"never ack", quiet, "never acknowledged"},
		{"lose a publish", quiet, "lost"},
		{"drop one in 1000", many, "lost"},
		{"swap two", quiet, "out of order"},
		{"duplicate", quiet, "duplicates"},
		{"corrupt a byte", quiet, "phantom"},
		{"dead-letter on shutdown", stopped, "dead letters"},
	} {
		t.Run(m.kind+", "+m.row.name, func(t *testing.T) {
			t.Parallel()
			x := newRun(t, mutantBroker(m.kind), &m.row)
			x.path, x.env, x.patience = self, []string{mutantVariable + "=" + m.kind}, 4*time.Second
			x.play()
			problems := slices.Concat(x.wrong, x.slow)
			switch {
			case m.want == "" && len(x.wrong) > 0:
				t.Errorf("nothing is wrong, and the ledger finds %q", problems)
			case m.want != "" && !begins(problems, m.want):
				t.Errorf("the ledger does not find %q: %q", m.want, problems)
			default:
				fmt.Printf("mutant %q, %s: found %q\n", m.kind, m.row.name, problems)
			}
		})
	}
}

func begins(problems []string, want string) bool {
	for _, p := range problems {
		if strings.HasPrefix(p, want) {
			return true
		}
	}
	return false
}

func mutantBroker(kind string) *broker {
	return &broker{
		name:     "mutant " + kind,
		resource: func(*run) string { return componentYAML("pubsub.mutant") },
		watch:    func(x *run) (lookFunc, func()) { return watchSQLite(x, filepath.Join(x.dir, "data-0", "penstock.db")) },
	}
}
