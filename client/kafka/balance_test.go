package kafka

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
)

// gang is a group whose members do what the leader says.
type gang struct {
	generation int32
	topics     map[string]int // partitions of each
	members    map[string]*claim
	reads      map[string][]string
}

func newGang(topics map[string]int) *gang {
	return &gang{topics: topics, members: map[string]*claim{}, reads: map[string][]string{}}
}

func (g *gang) join(id string, topics ...string) {
	g.members[id] = &claim{}
	g.reads[id] = topics
}

func (g *gang) leave(id string) { delete(g.members, id) }

// round is one generation. It tells whether a member has something to give up,
// and so joins again.
func (g *gang) round(t *testing.T) (again bool) {
	t.Helper()
	g.generation++
	var members []kafka.GroupMember
	for id, c := range g.members {
		data, err := sticky{func() claim { return *c }}.UserData()
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, kafka.GroupMember{ID: id, Topics: g.reads[id], UserData: data})
	}
	var parts []kafka.Partition
	for topic, n := range g.topics {
		for id := range n {
			parts = append(parts, kafka.Partition{Topic: topic, ID: id})
		}
	}
	held := holders(members)
	shares := sticky{}.AssignGroups(members, parts)
	for id := range g.members {
		if shares[id] == nil {
			t.Errorf("%s is told nothing", id)
		}
		for topic, ids := range shares[id] {
			for _, p := range ids {
				if from := held[place{topic, p}]; from != "" && from != id {
					t.Errorf("%s gets %s/%d, which %s holds", id, topic, p, from)
				}
			}
		}
		for topic, ids := range g.members[id].Parts {
			for _, p := range ids {
				again = again || !slices.Contains(shares[id][topic], p)
			}
		}
		g.members[id] = &claim{Generation: g.generation, Parts: shares[id]}
	}
	return again
}

// settle goes on until nobody has anything to give up, and returns who has how
// many.
func (g *gang) settle(t *testing.T) map[string]int {
	t.Helper()
	for n := 0; g.round(t); n++ {
		if n == 3 {
			t.Fatal("the group does not come to rest")
		}
	}
	has := map[string]int{}
	seen := map[place]bool{}
	for id, c := range g.members {
		has[id] = 0
		for topic, ids := range c.Parts {
			for _, p := range ids {
				seen[place{topic, p}] = true
				has[id]++
			}
		}
	}
	want := 0
	for _, n := range g.topics {
		want += n
	}
	if len(seen) != want && len(g.members) > 0 {
		t.Errorf("%d of %d partitions are read", len(seen), want)
	}
	return has
}

func TestStickyShares(t *testing.T) {
	t.Parallel()
	g := newGang(map[string]int{"t": 7})
	for _, step := range []struct {
		join, leave string
		want        []int
	}{
		{join: "a", want: []int{7}},
		{join: "b", want: []int{3, 4}},
		{join: "c", want: []int{2, 2, 3}},
		{join: "d", want: []int{1, 2, 2, 2}},
		{leave: "a", want: []int{2, 2, 3}},
		{leave: "c", want: []int{3, 4}},
	} {
		before := maps.Clone(g.members)
		if step.join != "" {
			g.join(step.join, "t")
		} else {
			g.leave(step.leave)
		}
		has := g.settle(t)
		if d := cmp.Diff(step.want, slices.Sorted(maps.Values(has))); d != "" {
			t.Errorf("%+v: %s", step, d)
		}
		for id, c := range before {
			now := g.members[id]
			if now == nil {
				continue
			}
			for _, p := range now.Parts["t"] { // when one joins, the others get nothing new
				if step.join != "" && !slices.Contains(c.Parts["t"], p) {
					t.Errorf("%+v: %s got partition %d of another", step, id, p)
				}
			}
		}
	}
}

// TestStickySharesTopics has topics of one partition each, which no member is to
// have all of.
func TestStickySharesTopics(t *testing.T) {
	t.Parallel()
	topics := map[string]int{}
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("t%d", i))
		topics[names[i]] = 1
	}
	g := newGang(topics)
	g.join("a", names...)
	g.settle(t)
	g.join("b", names...)
	if d := cmp.Diff(map[string]int{"a": 5, "b": 5}, g.settle(t)); d != "" {
		t.Error(d)
	}
	g.leave("b")
	g.join("c", "t3") // reads one topic alone
	has := g.settle(t)
	if has["a"]+has["c"] != 10 {
		t.Errorf("shares %v", has)
	}
}

// TestStickyComesToRest joins and leaves at random: after each the members have
// the same number of a topic's partitions, give or take one.
func TestStickyComesToRest(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	g := newGang(map[string]int{"a": 12, "b": 5})
	for n := range 200 {
		if id := fmt.Sprint(rng.IntN(6)); g.members[id] == nil {
			g.join(id, "a", "b")
		} else if len(g.members) > 1 {
			g.leave(id)
		}
		if rng.IntN(3) == 0 {
			g.round(t) // another one comes before the group is at rest
			g.join(fmt.Sprint("x", n%4), "a", "b")
		}
		g.settle(t)
		for topic := range g.topics {
			low, high := 100, 0
			for _, c := range g.members {
				low, high = min(low, len(c.Parts[topic])), max(high, len(c.Parts[topic]))
			}
			if high-low > 1 {
				t.Fatalf("after %d steps members have %d to %d of topic %s", n, low, high, topic)
			}
		}
	}
}

// TestStickyTakesLaterClaim has two members that say they hold the same: the one
// that heard of it last does. What is no claim is none.
func TestStickyTakesLaterClaim(t *testing.T) {
	t.Parallel()
	data := func(c claim) []byte {
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	parts := map[string][]int{"t": {0, 1}}
	got := holders([]kafka.GroupMember{
		{ID: "zombie", UserData: data(claim{3, parts})},
		{ID: "owner", UserData: data(claim{7, map[string][]int{"t": {1}}})},
		{ID: "other", UserData: []byte("\x00\x01range")},
		{ID: "new"},
	})
	if d := cmp.Diff(map[place]string{{"t", 0}: "zombie", {"t", 1}: "owner"}, got, cmp.AllowUnexported(place{})); d != "" {
		t.Error(d)
	}
}
