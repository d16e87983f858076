package conform

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestStateModel holds the checker against histories that a store may and may
// not have.
func TestStateModel(t *testing.T) {
	t.Parallel()
	save := func(value int32) historyCall { return historyCall{steps: []historyStep{{key: 1, value: value}}} }
	with := func(value int32, cond string, held int32) historyCall {
		return historyCall{steps: []historyStep{{key: 1, value: value, cond: cond, held: held}}}
	}
	both := historyCall{steps: []historyStep{{key: 1, value: 7}, {key: 2, value: 8, cond: "first"}}}
	read := historyCall{key: 1}
	done, unmet, found := historyAnswer{done: true}, historyAnswer{}, func(v int32) historyAnswer { return historyAnswer{value: v} }
	type op struct {
		call     historyCall
		answer   historyAnswer
		from, to int64
	}
	for name, c := range map[string]struct {
		ops  []op
		want bool
	}{
		"one after the other":       {[]op{{save(1), done, 0, 1}, {read, found(1), 2, 3}, {save(0), done, 4, 5}, {read, found(0), 6, 7}}, true},
		"a stale read":              {[]op{{save(1), done, 0, 1}, {save(2), done, 2, 3}, {read, found(1), 4, 5}}, false},
		"a read meanwhile":          {[]op{{save(1), done, 0, 1}, {save(2), done, 2, 9}, {read, found(1), 4, 5}, {read, found(2), 6, 7}}, true},
		"back again":                {[]op{{save(1), done, 0, 1}, {save(2), done, 2, 9}, {read, found(2), 4, 5}, {read, found(1), 6, 7}}, false},
		"two with one ETag":         {[]op{{save(1), done, 0, 1}, {with(2, "etag", 1), done, 2, 5}, {with(3, "etag", 1), done, 2, 5}}, false},
		"one with an ETag":          {[]op{{save(1), done, 0, 1}, {with(2, "etag", 1), done, 2, 5}, {with(3, "etag", 1), unmet, 2, 5}}, true},
		"an ETag refused":           {[]op{{save(1), done, 0, 1}, {with(2, "etag", 1), unmet, 2, 3}}, false},
		"two first writes":          {[]op{{with(1, "first", 0), done, 0, 3}, {with(2, "first", 0), done, 0, 3}}, false},
		"half a transaction":        {[]op{{both, done, 0, 1}, {both, unmet, 2, 3}, {read, found(7), 4, 5}, {historyCall{key: 2}, found(0), 6, 7}}, false},
		"a transaction and its end": {[]op{{both, done, 0, 1}, {both, unmet, 2, 3}, {historyCall{key: 2}, found(8), 6, 7}}, true},
	} {
		var history []porcupine.Operation
		for i, o := range c.ops {
			history = append(history, porcupine.Operation{ClientId: i, Input: o.call, Output: o.answer, Call: o.from, Return: o.to})
		}
		if got := porcupine.CheckOperations(stateModel(), history); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
