package resilience_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// heard is an observer that writes down what it hears.
type heard []string

func (h *heard) Applied(part, state string) {
	*h = append(*h, strings.TrimSpace("applied "+part+" "+state))
}

func (h *heard) Acted(part, state string) {
	*h = append(*h, strings.TrimSpace("acted "+part+" "+state))
}

// TestObserver: each try is told with the parts that it is under, and what they do.
func TestObserver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all heard
		p := resilience.Policy{
			Timeout: time.Second, Retry: resilience.Retry{Constant: true, Initial: time.Millisecond, Limit: 2}, Observer: &all,
			Breaker: resilience.NewBreaker(resilience.BreakerConfig{
				Timeout: time.Minute, Trip: func(n resilience.Counts) bool { return n.ConsecutiveFailures == 2 },
			}),
		}
		n := 0
		err := p.Do(t.Context(), func(ctx context.Context) error {
			if n++; n == 1 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return fault.New(fault.Unavailable, "away")
		})
		want := "applied timeout,applied retry,applied circuitbreaker closed,acted timeout,acted retry," +
			"applied timeout,applied retry,applied circuitbreaker closed," +
			"applied timeout,applied retry,applied circuitbreaker open"
		if got := strings.Join(all, ","); got != want || err == nil {
			t.Errorf("%v, heard\n%s\nwant\n%s", err, got, want)
		}
	})
}
