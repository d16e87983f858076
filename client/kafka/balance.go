package kafka

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// claim is what a member says that it holds when it joins a group: it reads
// those partitions until it has given them up.
type claim struct {
	// Generation is the one in which the member had them. Of two claims on a
	// partition the later one is right.
	Generation int32            `json:"g"`
	Parts      map[string][]int `json:"p"`
}

// whole shares out the partitions of all topics that are there. The library knows
// of none at all when the group has a member of a topic that is missing, and all
// members would read nothing.
type whole struct {
	kafka.GroupBalancer
	count func(topic string) int
}

// AssignGroups implements kafka.GroupBalancer.
func (w whole) AssignGroups(members []kafka.GroupMember, parts []kafka.Partition) kafka.GroupMemberAssignments {
	there := map[string]bool{}
	for _, p := range parts {
		there[p.Topic] = true
	}
	for _, m := range members {
		for _, topic := range m.Topics {
			if there[topic] {
				continue
			}
			there[topic] = true
			for id := range w.count(topic) {
				parts = append(parts, kafka.Partition{Topic: topic, ID: id})
			}
		}
	}
	return w.GroupBalancer.AssignGroups(members, parts)
}

// sticky shares out partitions so that every member keeps what it holds, as long
// as that is not more than its part. What is to go from one member to another is
// given to nobody at first: the one that holds it finishes what is under way,
// commits, and joins again, and then the other gets it. So a rebalance stops
// nothing but what moves.
type sticky struct {
	claim func() claim
}

// ProtocolName implements kafka.GroupBalancer.
func (s sticky) ProtocolName() string { return "penstock-sticky" }

// UserData implements kafka.GroupBalancer.
func (s sticky) UserData() ([]byte, error) { return json.Marshal(s.claim()) }

// AssignGroups implements kafka.GroupBalancer.
func (s sticky) AssignGroups(members []kafka.GroupMember, parts []kafka.Partition) kafka.GroupMemberAssignments {
	topics := map[string][]int{}
	for _, p := range parts {
		topics[p.Topic] = append(topics[p.Topic], p.ID)
	}
	holders := holders(members)
	shares := kafka.GroupMemberAssignments{}
	for _, m := range members {
		shares[m.ID] = map[string][]int{}
	}
	load := map[string]int{}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		var readers []string
		for _, m := range members {
			if slices.Contains(m.Topics, topic) {
				readers = append(readers, m.ID)
			}
		}
		if len(readers) == 0 {
			continue
		}
		slices.Sort(readers)
		slices.Sort(topics[topic])
		held := make(map[int]string)
		for _, id := range topics[topic] {
			held[id] = holders[place{topic, id}]
		}
		for id, to := range share(readers, topics[topic], held, load) {
			load[to]++
			if from := held[id]; from == "" || from == to {
				shares[to][topic] = append(shares[to][topic], id)
			}
		}
	}
	return shares
}

// holders tells who holds what.
func holders(members []kafka.GroupMember) map[place]string {
	type holder struct {
		member     string
		generation int32
	}
	latest := map[place]holder{}
	for _, m := range members {
		var c claim
		if json.Unmarshal(m.UserData, &c) != nil {
			continue // a member that holds nothing, or is none of ours
		}
		for topic, parts := range c.Parts {
			for _, id := range parts {
				at := place{topic, id}
				if other, ok := latest[at]; !ok || other.generation < c.Generation {
					latest[at] = holder{m.ID, c.Generation}
				}
			}
		}
	}
	all := map[place]string{}
	for at, h := range latest {
		all[at] = h.member
	}
	return all
}

// share shares out the partitions of a topic. Whoever has the least of the other
// topics gets one more where they cannot have the same number.
func share(readers []string, parts []int, held map[int]string, load map[string]int) map[int]string {
	has := map[string]int{}
	for _, m := range held {
		has[m]++
	}
	order := slices.Clone(readers)
	slices.SortStableFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(load[a], load[b]), cmp.Compare(has[b], has[a]))
	})
	room := map[string]int{}
	for i, m := range order {
		room[m] = len(parts) / len(order)
		if i < len(parts)%len(order) {
			room[m]++
		}
	}
	to := map[int]string{}
	for _, id := range parts {
		if m := held[id]; room[m] > 0 {
			to[id] = m
			room[m]--
		}
	}
	for _, id := range parts {
		if to[id] != "" {
			continue
		}
		i := slices.IndexFunc(order, func(m string) bool { return room[m] > 0 })
		to[id] = order[i]
		room[order[i]]--
	}
	return to
}
