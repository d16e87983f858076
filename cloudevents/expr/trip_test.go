package expr

import (
	"testing"

	"github.com/penstock-io/penstock/fault"
)

func TestTrip(t *testing.T) {
	t.Parallel()
	n := Counts{Requests: 20, TotalSuccesses: 12, TotalFailures: 8, ConsecutiveSuccesses: 0, ConsecutiveFailures: 3}
	rows := []struct {
		text string
		want bool
	}{
		{"requests == 20 && totalSuccesses == 12 && totalFailures == 8", true},
		{"consecutiveSuccesses == 0 && consecutiveFailures == 3", true},
		{"consecutiveFailures > 5", false},
		{"consecutiveFailures >= 3", true},
		{"double(totalFailures) / double(requests) > 0.3", true},
		{"totalFailures / requests > 0.3", false}, // whole numbers
		{"consecutiveFailures > 2.5", true},
		{"totalFailures / consecutiveSuccesses > 0", false}, // cannot be told
	}
	c := New()
	for _, row := range rows {
		trip, err := c.CompileTrip(row.text)
		if err != nil {
			t.Errorf("%s: %v", row.text, err)
			continue
		}
		if got := trip.Holds(n); got != row.want || trip.String() != row.text {
			t.Errorf("%s is %v", trip, got)
		}
	}
}

func TestWrongTrips(t *testing.T) {
	t.Parallel()
	rows := []struct{ text, want string }{
		{"consecutiveFailure > 5", `line 1, column 1: unknown name "consecutiveFailure": there are requests, totalSuccesses, totalFailures, consecutiveSuccesses, consecutiveFailures`},
		{"event.type == 'x'", `line 1, column 1: unknown name "event": there are requests, totalSuccesses, totalFailures, consecutiveSuccesses, consecutiveFailures`},
		{"requests +", "line 1, column 11: the expression ends too early"},
		{"requests + 1", "line 1, column 1: the result is an int, a trip must be true or false"},
		{"requests * 0.5 > 1.0", "line 1, column 10: * cannot be applied to (int, double)"},
		{" ", "line 1, column 1: the expression is empty"},
	}
	c := New()
	for _, row := range rows {
		_, err := c.CompileTrip(row.text)
		if err == nil || err.Error() != row.want || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want %s", row.text, err, row.want)
		}
	}
}
