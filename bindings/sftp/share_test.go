package sftp

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
)

// hold answers nothing: what is delivered stays under way.
func hold(*cloudevents.Delivery) (cloudevents.Outcome, bool) { return cloudevents.Outcome{}, false }

// shareFolder has three processes take the files of one folder: each file comes
// once.
func shareFolder(t *testing.T, o map[string]string) {
	t.Helper()
	var sides []*side
	for range 3 {
		sides = append(sides, reads(t, maps.Clone(o), nil))
	}
	const files = 150
	want := map[string]int{}
	for i := range files {
		put(t, o, fmt.Sprintf("in/f%03d", i), fmt.Sprint(i))
		want[fmt.Sprint(i)] = 1
	}
	until(t, "all are done", func() bool {
		entries, _ := os.ReadDir(filepath.Join(o["rootPath"], "in/.done"))
		return len(entries) == files
	})
	got := map[string]int{}
	for _, s := range sides {
		for _, body := range s.bodies() {
			got[body]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times each file came (-want +got)\n%s", diff)
	}
}

func TestSharedFolder(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	shareFolder(t, o)
}

// TestCloseGivesBack: what is under way goes back under its name, where another
// finds it.
func TestCloseGivesBack(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	put(t, o, "in/a", "x")
	first := reads(t, maps.Clone(o), hold)
	until(t, "delivered", func() bool { return len(first.bodies()) == 1 })
	if has(o, "in/a") {
		t.Fatal("a file that is under way is still in the folder")
	}
	shut(t, first.driver)
	if !has(o, "in/a") {
		t.Fatal("the file was not given back")
	}
	if entries, err := os.ReadDir(filepath.Join(o["rootPath"], "in", claimsDir)); err != nil || len(entries) != 0 {
		t.Errorf("claims that are left: %v, %v", entries, err)
	}
	first.at(0).Settle(cloudevents.Acked()) // too late
	second := reads(t, maps.Clone(o), nil)
	until(t, "done", func() bool { return has(o, "in/.done/a") })
	if first.at(0).Event.ID() != second.at(0).Event.ID() {
		t.Error("it has another id")
	}
}

// TestCloseOverwritesNothing: a file cannot be given back when there is a new one
// of its name; both are delivered in the end.
func TestCloseOverwritesNothing(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	put(t, o, "in/a", "old")
	first := reads(t, maps.Clone(o), hold)
	until(t, "delivered", func() bool { return len(first.bodies()) == 1 })
	put(t, o, "in/a", "newer")
	shut(t, first.driver)
	second := reads(t, maps.Clone(o), nil)
	until(t, "both are done", func() bool {
		entries, _ := os.ReadDir(filepath.Join(o["rootPath"], "in/.done"))
		return len(entries) == 2
	})
	got := map[string]bool{}
	for _, body := range second.bodies() {
		got[body] = true
	}
	if diff := cmp.Diff(map[string]bool{"old": true, "newer": true}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestCrash: what a process that is gone had is taken by another, by the age of
// its sign of life, and not before.
func TestCrash(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["claimTimeout"] = "1m"
	dead, live := "in/"+claimsDir+"/dead/", "in/"+claimsDir+"/live/"
	put(t, o, dead+"a", "x")
	put(t, o, dead+alive, "")
	put(t, o, live+"b", "y")
	put(t, o, live+alive, "")
	long := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(filepath.Join(o["rootPath"], dead+alive), long, long); err != nil {
		t.Fatal(err)
	}
	s := reads(t, o, nil)
	until(t, "done", func() bool { return has(o, "in/.done/a") })
	until(t, "the claims of the dead are gone", func() bool { return !has(o, dead) })
	if diff := cmp.Diff([]string{"x"}, s.bodies()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !has(o, live+"b") {
		t.Error("the claim of a process that lives was taken")
	}
}

// TestEvicted: a process whose claims were taken over, since nothing was heard of
// it, goes on with new ones.
func TestEvicted(t *testing.T) {
	t.Parallel()
	_, o := setup(t)
	o["claimTimeout"] = "1s"
	put(t, o, "in/a", "x")
	s := reads(t, o, hold)
	until(t, "delivered", func() bool { return len(s.bodies()) == 1 })
	if err := os.Rename(filepath.Join(o["rootPath"], "in", claimsDir), filepath.Join(o["rootPath"], "taken")); err != nil {
		t.Fatal(err)
	}
	s.at(0).Settle(cloudevents.Acked()) // finds nothing to put away
	put(t, o, "in/b", "y")
	until(t, "the next file", func() bool { return len(s.bodies()) == 2 })
	s.at(1).Settle(cloudevents.Acked())
	until(t, "done", func() bool { return has(o, "in/.done/b") })
	if has(o, "in/.done/a") || !has(o, "taken") {
		t.Error("a file was touched that others have")
	}
}
