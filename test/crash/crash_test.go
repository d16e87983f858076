package crash

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// wait lets the load run for a while; the while is what is tested.
func wait(d time.Duration) { <-time.After(d) }

func rounds(short, long int) int {
	if *full {
		return long
	}
	return short
}

// TestKill ends penstock with SIGKILL at random moments under load. Every
// event that was accepted reaches the app at least once.
func TestKill(t *testing.T) {
	a := newApp(t)
	s := newSidecar(t, a.port)
	s.start()
	l := startLoad(t, s, 2*time.Millisecond)
	n := rounds(10, 50)
	for range n {
		wait(50*time.Millisecond + rand.N(250*time.Millisecond))
		s.Kill()
		s.start()
	}
	l.stop()
	fmt.Printf("%s: killed %d times\n", t.Name(), n)
	l.settle(t, a)
	s.stop()
}

// TestTerminate ends penstock with SIGTERM under load. Nothing is lost, nothing
// dead-lettered, and nothing comes twice.
func TestTerminate(t *testing.T) {
	a := newApp(t)
	s := newSidecar(t, a.port)
	s.start()
	l := startLoad(t, s, 2*time.Millisecond)
	for range rounds(5, 20) {
		wait(100*time.Millisecond + rand.N(200*time.Millisecond))
		s.stop()
		s.start()
	}
	l.stop()
	l.settle(t, a)
	s.stop()
	if _, duplicates := a.tally(nil); duplicates > 0 {
		t.Errorf("%d events came twice, though every stop was clean", duplicates)
	}
}

// TestReload changes the configuration every second under load: components
// come, change and go, and every third change is broken. Nothing is lost,
// nothing dead-lettered, nothing refused.
func TestReload(t *testing.T) {
	a := newApp(t)
	s := newSidecar(t, a.port)
	s.start()
	l := startLoad(t, s, 2*time.Millisecond)
	n := rounds(8, 30)
	for i := range n {
		wait(time.Second)
		switch i % 4 {
		case 0: // an option of the bus changes
			s.write("resources.yaml", strings.Replace(s.resources, "/bus.db\"}]", fmt.Sprintf("/bus.db\"}, {name: allowedTopics, value: \"load,dead,t%d\"}]", i), 1))
		case 1: // a component comes
			s.write("more.yaml", extra)
		case 2: // a broken file
			s.write("more.yaml", strings.Replace(extra, "schedule", "shcedule", 1))
		case 3: // it is mended
			s.write("more.yaml", strings.Replace(extra, "10m", fmt.Sprintf("%dm", i+1), 1))
		}
	}
	l.stop()
	l.settle(t, a)
	s.stop()
	if got := l.refused.Load(); got > 0 {
		t.Errorf("%d requests were refused", got)
	}
	if log := s.Log(); !strings.Contains(log, "shcedule") || !strings.Contains(log, "Configuration reloaded") {
		t.Error("the log tells neither of the broken file nor of the reloads: the test shows nothing")
	}
}

const extra = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: rarely}
spec:
  type: bindings.cron
  version: v1
  metadata: [{name: schedule, value: "@every 10m"}]
`
