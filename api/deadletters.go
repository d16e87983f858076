package api

import (
	"context"
	"strings"

	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
)

// ListDeadLetters returns a page of the events that were given up, the newest
// first, without their bodies. Page is the Next of the page before.
func (a *API) ListDeadLetters(ctx context.Context, q *deadletters.Query, limit int, page string) (*deadletters.Page, error) {
	p, err := a.rt.DeadLetters().List(ctx, q, limit, page)
	if err != nil {
		return nil, deadLetterError(err)
	}
	return p, nil
}

// DeadLetter returns one with its metadata and body.
func (a *API) DeadLetter(ctx context.Context, id string) (*deadletters.Letter, error) {
	l, err := a.rt.DeadLetters().Get(ctx, id)
	if err != nil {
		return nil, deadLetterError(err)
	}
	return l, nil
}

// ReplayDeadLetters hands events that were given up back to their routes, or
// publishes them to a topic, and returns when all are settled or ctx ends; then
// the rest stays. The result is not nil when anything was tried, also with an
// error.
func (a *API) ReplayDeadLetters(ctx context.Context, r *deadletters.Replay) (*deadletters.Result, error) {
	if bus, topic, ok := strings.Cut(r.To, "/"); ok && bus != "" && topic != "" {
		b, err := a.bus(bus, topic, nil)
		if err != nil {
			return nil, err
		}
		if err := b.MayPublish(topic); err != nil {
			return nil, a.publishError(bus, topic, err)
		}
	}
	res, err := a.rt.DeadLetters().Replay(ctx, r)
	if err != nil {
		return res, deadLetterError(err)
	}
	return res, nil
}

// DiscardDeadLetters removes events that were given up for good. It returns how
// many, and the ids that there was none of.
func (a *API) DiscardDeadLetters(ctx context.Context, s *deadletters.Selection) (n int, lacking []string, err error) {
	n, lacking, err = a.rt.DeadLetters().Discard(ctx, s)
	if err != nil {
		return n, lacking, deadLetterError(err)
	}
	return n, lacking, nil
}

func deadLetterError(err error) *Error {
	switch fault.KindOf(err) {
	case fault.NotFound:
		return wrap(DeadLetterNotFound, err)
	case fault.Invalid:
		return wrap(DeadLetterSelection, err)
	}
	return wrap(DeadLetterStore, err)
}
