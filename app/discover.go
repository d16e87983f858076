package app

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

const (
	// MaxSubscriptions bounds what an app may ask for.
	MaxSubscriptions = 10_000
	// MaxRules bounds the rules of all of them, each of which is compiled.
	MaxRules = 10_000
	// DefaultBulkMessages is how many events a call carries for an app that asks
	// for bulk delivery without saying how many.
	DefaultBulkMessages = 100
	// DefaultBulkWait is how long the first of them waits for the others.
	DefaultBulkWait = time.Second
)

// Ask asks the app something until it answers: three more times, after 500 ms
// and then longer. Limit bounds each try.
func Ask[T any](ctx context.Context, limit time.Duration, question func(context.Context) (T, error)) (T, error) {
	pauses := resilience.Retry{Initial: 500 * time.Millisecond, Max: 5 * time.Second, Limit: 3}
	for n := 1; ; n++ {
		answer, err := askOnce(ctx, limit, question)
		if err == nil || !pauses.Allows(n) || resilience.Sleep(ctx, pauses.Delay(n, fault.RetryAfter(err))) != nil {
			return answer, err
		}
	}
}

func askOnce[T any](ctx context.Context, limit time.Duration, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return question(ctx)
}
