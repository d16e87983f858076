package postgres

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// inputOptions say what to read; without any the binding is an output only.
type inputOptions struct {
	Channel       string        `meta:"channel"       doc:"Channel to LISTEN on. Without a table each notification is an event; with one it only says that there are rows." example:"orders"`
	Table         string        `meta:"table"         doc:"Table whose rows are events, as name or schema.name." example:"outbox"`
	KeyColumn     string        `meta:"keyColumn"     default:"id" doc:"Column of the table that names a row and that rows are taken in the order of; it must be unique."`
	DataColumn    string        `meta:"dataColumn"    doc:"Column that is the data of the event; when empty the row as a JSON object."`
	StatusColumn  string        `meta:"statusColumn"  doc:"Column that is set to statusDone when a row is done, and of which rows are taken that have statusWaiting. When empty a row that is done is deleted."`
	StatusWaiting string        `meta:"statusWaiting" default:"new"  doc:"What stands in statusColumn of a row that is not done."`
	StatusDone    string        `meta:"statusDone"    default:"done" doc:"What is written into statusColumn of a row that is done."`
	Where         string        `meta:"where"         doc:"Condition in SQL for rows to be taken; the table is called t." example:"t.due <= now()"`
	PollInterval  time.Duration `meta:"pollInterval"  default:"1s" doc:"How often a table without rows is looked at; a notification on channel makes it at once. From 10ms to 1h."`
	MaxInFlight   int           `meta:"maxInFlight"   default:"8"  doc:"Most rows of the table under way, each with a transaction and a connection of its own; from 1 to 256. 1 keeps the order."`
}

// check finds what is wrong.
func (o inputOptions) check() error {
	var errs []error
	name := regexp.MustCompile(`^[^."\x00]+(\.[^."\x00]+)?$`)
	for option, text := range map[string]string{"table": o.Table} {
		if text != "" && !name.MatchString(text) {
			errs = append(errs, component.OptionErrorf(option, "%q is not a name or schema.name", text))
		}
	}
	if o.Table != "" && o.KeyColumn == "" {
		errs = append(errs, component.OptionErrorf("keyColumn", "is missing"))
	}
	if o.Table == "" && (o.StatusColumn != "" || o.DataColumn != "" || o.Where != "") {
		errs = append(errs, component.OptionErrorf("table", "is missing, and there are options of a table"))
	}
	if o.StatusColumn != "" && o.StatusDone == o.StatusWaiting {
		errs = append(errs, component.OptionErrorf("statusDone", "must be another than statusWaiting"))
	}
	if o.PollInterval < 10*time.Millisecond || o.PollInterval > time.Hour {
		errs = append(errs, component.OptionErrorf("pollInterval", "must be from 10ms to 1h"))
	}
	if o.MaxInFlight < 1 || o.MaxInFlight > 256 {
		errs = append(errs, component.OptionErrorf("maxInFlight", "must be from 1 to 256"))
	}
	return errors.Join(errs...)
}

// input is one of the two ways to read.
type input interface {
	bindings.Reader
	close(ctx context.Context) error
}

// source is a binding that can be read too.
type source struct {
	*binding
	input
}

// openInput adds the input that the options ask for.
func openInput(ctx context.Context, env component.Env, b *binding, o options) (bindings.Driver, error) {
	var in input
	var err error
	switch {
	case o.Table != "":
		in, err = openTable(ctx, b.db, env, o)
	case o.Channel != "":
		in, err = openChannel(ctx, b.db, env, o)
	default:
		return b, nil
	}
	if err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	return &source{b, in}, nil
}

func logger(env component.Env) *slog.Logger {
	if env.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return env.Logger
}

// Close stops reading, gives back what is not settled and lets go of the
// connections.
func (s *source) Close(ctx context.Context) error {
	return errors.Join(s.close(ctx), s.binding.Close(ctx))
}

// delivery makes that of something that was read.
func delivery(origin string, r bindings.Received, attempt int, metadata map[string]string) *cloudevents.Delivery {
	e, err := r.Event()
	if err != nil {
		r.ContentType = "application/octet-stream"
		e, _ = r.Event() // bytes fit into any event
	}
	return &cloudevents.Delivery{Body: r.Data, Event: e, Metadata: metadata, Attempt: attempt, Origin: origin}
}

// wait waits until ctx ends, something comes, or for a while.
func wait(ctx context.Context, bell <-chan struct{}, while time.Duration) {
	t := time.NewTimer(max(while, time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-bell:
	case <-t.C:
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// The wait before a retry whose outcome names none doubles from the first to the
// last.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

func backoff(o cloudevents.Outcome, attempt int) time.Duration {
	if o.After > 0 {
		return o.After
	}
	return min(minBackoff<<min(attempt-1, 10), maxBackoff)
}
