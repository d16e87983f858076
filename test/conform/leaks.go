package conform

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// leakPatience is how long what a case opened may take to go: a fake server
// learns of a closed connection when it next reads it, which on a busy machine
// is later than goleak waits of itself.
const leakPatience = 10 * time.Second

// leaks takes a picture of the goroutines there are and returns the check that
// no other is left.
//
// What kfake runs for a connection is its own matter: it ends only after the
// request it holds is answered, a fetch that waits included, however long the
// client has been gone.
func leaks() func(*testing.T) {
	options := []goleak.Option{
		goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).read"),
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).write"),
	}
	return func(t *testing.T) {
		t.Helper()
		end := time.Now().Add(leakPatience)
		err := goleak.Find(options...)
		for err != nil && time.Now().Before(end) {
			err = goleak.Find(options...)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
