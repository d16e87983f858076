package state

import "github.com/penstock-io/penstock/fault"

// Final makes of a transaction one with a single change of each key, for stores
// that take no more. What comes out has the effect of the last change of a key
// under the condition of the first; FirstWrite of a Delete is such a condition
// too, and must be heeded. Keys stay in the order of their first change.
//
// Kind Conflict when the condition of a later change cannot hold after those
// before it: nobody can know the ETag that a transaction is about to give.
func Final(changes []Change) ([]Change, error) {
	at := make(map[string]int, len(changes))
	out := make([]Change, 0, len(changes))
	for _, c := range changes {
		first := c.ETag == nil && c.FirstWrite && !c.Delete
		i, again := at[c.Key]
		if !again {
			c.FirstWrite = first
			at[c.Key] = len(out)
			out = append(out, c)
			continue
		}
		before := &out[i]
		switch {
		case c.ETag != nil:
			return nil, fault.New(fault.Conflict, "the item has another ETag after an earlier change of the transaction")
		case first && !before.Delete:
			return nil, fault.New(fault.Conflict, "the item is there already after an earlier change of the transaction")
		}
		c.ETag, c.FirstWrite = before.ETag, before.FirstWrite
		*before = c
	}
	return out, nil
}
