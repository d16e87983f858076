package deadletters

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// MaxUnderWay bounds the events of one replay that are under way at once.
const MaxUnderWay = 64

// maxFailures bounds the failures that a result lists.
const maxFailures = 100

// Selection is the letters that something is done with: those of a query that is
// not empty, or all.
type Selection struct {
	Query
	// All is said when everything is meant; the query is then empty.
	All bool
}

func (s *Selection) check() error {
	switch {
	case s.All && !s.Query.Empty():
		return fault.New(fault.Invalid, "select dead letters: all excludes ids and filters; give one of them")
	case !s.All && s.Query.Empty():
		return fault.New(fault.Invalid, "select dead letters: nothing says which; give ids, a filter, or all")
	}
	return nil
}

// Replay says what to replay, and how.
type Replay struct {
	Selection
	// Rate is events per second; zero is as fast as the route takes them.
	Rate float64
	// To is "pubsub/topic": publish there instead of handing the event to the
	// route that gave it up.
	To string
	// Body, when not nil, is what goes in place of the body of the letter; the
	// selection is then one id. What is given up again has it, and where nothing
	// keeps that the letter stays as it was.
	Body []byte
	// Progress, when not nil, is told now and then how far it is.
	Progress func(Result)
}

// MaxRate bounds a replay's rate.
const MaxRate = 1_000_000

// Result is how a replay or a discard went.
type Result struct {
	// Matched is how many were to be replayed; it is the sum of the others.
	Matched int `json:"matched"`
	// Replayed were taken by their route, or published, and are gone.
	Replayed int `json:"replayed"`
	// Failed were given up again. The route wrote a new dead letter in their
	// place; where it has none, they stayed.
	Failed int `json:"failed"`
	// Left stayed because they could not be handed over or not tried to the end;
	// ids without a letter count here. Until the end it is what is not done yet.
	Left int `json:"left"`
	// Errors says why, for the first hundred of Failed and Left.
	Errors []Failure `json:"errors"`
}

// Failure is one letter that was not replayed.
type Failure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func (r *Result) fail(id, reason string) {
	if len(r.Errors) < maxFailures {
		r.Errors = append(r.Errors, Failure{id, reason})
	}
}

// settled is the end of one event under way.
type settled struct {
	letter  *Letter
	outcome cloudevents.Outcome
}

// run is one replay.
type run struct {
	k     *Keeper
	db    *sqlite.DB
	r     *Replay
	ends  chan settled // has room for all under way
	under int
	gone  map[string]error // routes that do not run
	res   Result
	told  time.Time // when progress was told
}

// Replay hands the letters that are there now, oldest first, back to the routes
// that gave them up, and returns when all of them are settled. When ctx ends the
// rest stays, and its cause is returned with the result so far; what is under
// way then is settled in the background. One letter is in one replay at a time.
// Kinds: Invalid for a bad request, else what came of the file.
func (k *Keeper) Replay(ctx context.Context, r *Replay) (*Result, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	x := &run{k: k, r: r, ends: make(chan settled, MaxUnderWay), gone: map[string]error{}, told: time.Now()}
	x.res.Errors = []Failure{}
	ctx, end := k.begin(ctx, x)
	defer end()
	var seqs []int64
	var err error
	if x.db, seqs, err = k.pick(ctx, &r.Selection, func(id string) {
		x.res.Matched++
		x.res.fail(id, notFound(id).Error())
	}); err != nil {
		return nil, err
	}
	x.res.Matched += len(seqs)
	err = x.all(ctx, seqs)
	for err == nil && x.under > 0 {
		err = x.wait(ctx)
	}
	if x.under > 0 {
		x.leave(ctx)
	} else if err == nil && x.db != nil {
		if serr := k.shrink(ctx, x.db); serr != nil && ctx.Err() == nil {
			k.log.Warn("Space of replayed dead letters is not given back yet", "file", k.path, "error", serr)
		}
	}
	res := x.result()
	return &res, err
}

// result is how it went so far.
func (x *run) result() Result {
	r := x.res
	r.Left = r.Matched - r.Replayed - r.Failed
	r.Errors = slices.Clone(r.Errors)
	return r
}

func (r *Replay) check() error {
	if err := r.Selection.check(); err != nil {
		return err
	}
	if r.Rate < 0 || r.Rate > MaxRate || math.IsNaN(r.Rate) {
		return fault.New(fault.Invalid, "replay dead letters: a rate of %v; use events per second, 0 for no limit", r.Rate)
	}
	if r.Body != nil && len(r.IDs) != 1 {
		return fault.New(fault.Invalid, "replay dead letters with another body: give the id of one")
	}
	if bus, topic, ok := strings.Cut(r.To, "/"); r.To != "" && (!ok || bus == "" || topic == "") {
		return fault.New(fault.Invalid, "replay dead letters to %.80q: write pubsub/topic", r.To)
	}
	return nil
}

// pick returns the letters of a selection, oldest first, as they are now: what
// is given up again meanwhile does not go round in circles.
func (k *Keeper) pick(ctx context.Context, s *Selection, lacks func(string)) (*sqlite.DB, []int64, error) {
	f, err := k.check(&s.Query)
	if err != nil {
		return nil, nil, err
	}
	db, err := k.open(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	if db == nil {
		for _, id := range s.IDs {
			lacks(id)
		}
		return nil, nil, nil
	}
	var seqs []int64
	add := func(l *Letter) error { seqs = append(seqs, l.seq); return nil }
	if len(s.IDs) > 0 {
		ids := slices.Compact(slices.Sorted(slices.Values(s.IDs)))
		err = k.byID(ctx, db, ids, add, lacks)
		slices.Sort(seqs)
		return db, seqs, err
	}
	err = k.walk(ctx, db, walk{query: &s.Query, filter: f}, add)
	return db, seqs, err
}

// all hands over one after the other at the rate.
func (x *run) all(ctx context.Context, seqs []int64) error {
	start := time.Now()
	for i, seq := range seqs {
		if x.r.Rate > 0 {
			due := start.Add(time.Duration(float64(i) / x.r.Rate * float64(time.Second)))
			for wait := time.Until(due); wait > 0; wait = time.Until(due) {
				if err := x.pause(ctx, wait); err != nil {
					return err
				}
			}
		}
		for x.under >= MaxUnderWay {
			if err := x.wait(ctx); err != nil {
				return err
			}
		}
		if err := x.one(ctx, seq); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d, or until something ended, which it notes.
func (x *run) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(min(d, tellInterval))
	defer t.Stop()
	select {
	case s := <-x.ends:
		return x.note(ctx, s)
	case <-t.C:
		x.tell()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wait waits until something ended.
func (x *run) wait(ctx context.Context) error { return x.pause(ctx, tellInterval) }

// tellInterval is how often progress is told.
const tellInterval = time.Second

func (x *run) tell() {
	if x.r.Progress != nil && time.Since(x.told) >= tellInterval {
		x.told = time.Now()
		x.r.Progress(x.result())
	}
}

// one hands one letter over. An error ends the replay.
func (x *run) one(ctx context.Context, seq int64) error {
	l, err := x.k.read(ctx, x.db, "seq", seq)
	if err != nil || l == nil { // discarded meanwhile
		return err
	}
	if !x.k.claim(seq) {
		x.res.fail(l.ID, "another replay has it under way")
		return nil
	}
	if x.r.Body != nil {
		l.Body = x.r.Body
	}
	if x.r.To != "" {
		return x.publish(ctx, l)
	}
	d := &cloudevents.Delivery{Body: l.Body, Metadata: l.original(), Key: l.Metadata[KeyKey], Origin: l.Origin, Replays: l.Replays + 1}
	d.Settle = func(o cloudevents.Outcome) { x.ends <- settled{l, o} }
	if err := x.inject(ctx, l, d); err != nil {
		x.k.release(seq)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		x.res.fail(l.ID, err.Error())
		return nil
	}
	x.under++
	return nil
}

func (x *run) inject(ctx context.Context, l *Letter, d *cloudevents.Delivery) error {
	route, err := x.route(l)
	if err != nil {
		return err
	}
	if err := x.gone[route]; err != nil {
		return err
	}
	err = x.k.o.Inject(ctx, route, d)
	if fault.KindOf(err) == fault.NotFound {
		err = fault.New(fault.NotFound, "route %s does not run here; start what it needs, or say where to publish (to, --to pubsub/topic)", route)
		x.gone[route] = err
	}
	return err
}

// route finds the route that gave the letter up. One that something else wrote,
// a Dapr sidecar say, belongs to the one route whose dead letters go there.
func (x *run) route(l *Letter) (string, error) {
	if l.Route != "" {
		return l.Route, nil
	}
	switch routes := x.k.o.Routes(l.PubSub, l.Topic); len(routes) {
	case 1:
		return routes[0], nil
	case 0:
		return "", fault.New(fault.NotFound, "it does not say which route gave it up, and none has %s/%s as its dead letter topic; say where to publish (to, --to pubsub/topic)", l.PubSub, l.Topic)
	default:
		return "", fault.New(fault.Conflict, "it does not say which route gave it up, and %s have %s/%s as their dead letter topic; say where to publish (to, --to pubsub/topic)",
			strings.Join(routes, ", "), l.PubSub, l.Topic)
	}
}

// publish sends a letter to a topic.
func (x *run) publish(ctx context.Context, l *Letter) error {
	bus, topic, _ := strings.Cut(x.r.To, "/")
	err := x.k.o.Publish(ctx, bus, topic, l.Body, l.original())
	o := cloudevents.Acked()
	if err != nil {
		o = cloudevents.Left(err.Error())
	}
	x.under++
	return x.note(ctx, settled{l, o})
}

// note writes down how some ended: first and what else has come by now, in one
// transaction.
func (x *run) note(ctx context.Context, first settled) error {
	ctx = context.WithoutCancel(ctx) // what was delivered has to go
	var done, tried []int64
	for s, more := first, true; more; {
		x.under--
		switch seq, o := s.letter.seq, s.outcome; {
		case o.Verdict == cloudevents.Ack:
			x.res.Replayed++
			done = append(done, seq)
		case o.Verdict == cloudevents.Drop && o.Discard: // nothing else keeps it
			x.failed(s, "given up again, without a new dead letter: ")
			tried = append(tried, seq)
		case o.Verdict == cloudevents.Drop:
			x.failed(s, "given up again: ")
			done = append(done, seq)
		case o.Verdict == cloudevents.Retry:
			x.res.fail(s.letter.ID, "not delivered: "+reason(o))
			tried = append(tried, seq)
		default:
			x.res.fail(s.letter.ID, "not tried to the end: "+reason(o))
		}
		defer x.k.release(s.letter.seq)
		select {
		case s = <-x.ends:
		default:
			more = false
		}
	}
	x.tell()
	if len(done) > 0 {
		if _, err := x.k.remove(ctx, x.db, done); err != nil {
			return err
		}
	}
	if len(tried) > 0 {
		return x.k.tried(ctx, x.db, tried)
	}
	return nil
}

func (x *run) failed(s settled, how string) {
	x.res.Failed++
	x.res.fail(s.letter.ID, how+reason(s.outcome))
}

func reason(o cloudevents.Outcome) string {
	switch {
	case o.Reason != "":
		return o.Reason
	case o.Err != nil:
		return o.Err.Error()
	}
	return "the route said " + o.Verdict.String()
}

// leave goes on with what is under way after the caller is gone. It ends with
// the routes at the latest, which settle everything when they are drained.
func (x *run) leave(ctx context.Context) {
	rest := &run{k: x.k, db: x.db, r: &Replay{}, ends: x.ends, under: x.under}
	ctx = context.WithoutCancel(ctx)
	x.k.finishing.Go(func() {
		for rest.under > 0 {
			if err := rest.note(ctx, <-rest.ends); err != nil {
				rest.k.log.Error("Replayed dead letters stay in the file and may be replayed again", "error", err)
			}
		}
	})
}

// claim makes sure that a letter is in one replay at a time.
func (k *Keeper) claim(seq int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.replaying[seq]; taken {
		return false
	}
	k.replaying[seq] = struct{}{}
	return true
}

func (k *Keeper) release(seq int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.replaying, seq)
}

// removeRows are discarded in one transaction, so that others can write too.
const removeRows = 500

// Discard removes letters for good and returns how many; ids that have no letter
// are in lacking. Kind Invalid for a bad selection.
func (k *Keeper) Discard(ctx context.Context, s *Selection) (n int, lacking []string, err error) {
	if err := s.check(); err != nil {
		return 0, nil, err
	}
	db, seqs, err := k.pick(ctx, s, func(id string) { lacking = append(lacking, id) })
	if err != nil || db == nil {
		return 0, lacking, err
	}
	for len(seqs) > 0 {
		if err := ctx.Err(); err != nil {
			return n, lacking, fault.Wrap(err, "discard dead letters")
		}
		some := seqs[:min(removeRows, len(seqs))]
		seqs = seqs[len(some):]
		removed, err := k.remove(ctx, db, some)
		n += removed
		if err != nil {
			return n, lacking, err
		}
	}
	return n, lacking, k.shrink(ctx, db)
}
