package deadletters_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// routes are where replayed events go.
type routes struct {
	mu   sync.Mutex
	got  []*cloudevents.Delivery
	most int // under way at once
	now  int
	say  func(d *cloudevents.Delivery) (cloudevents.Outcome, error)
	held []*cloudevents.Delivery
	hold bool
	seen chan struct{}
}

// inject says for each event how it ends, or holds it.
func (r *routes) inject(_ context.Context, _ string, d *cloudevents.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, d)
	r.now++
	r.most = max(r.most, r.now)
	if r.hold {
		r.held = append(r.held, d)
		r.seen <- struct{}{}
		return nil
	}
	o, err := cloudevents.Acked(), error(nil)
	if r.say != nil {
		o, err = r.say(d)
	}
	if err != nil {
		r.now--
		return err
	}
	go func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
		d.Settle(o)
	}()
	return nil
}

func (r *routes) bodies() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		list = append(list, string(d.Body))
	}
	return list
}

func keeper(t *testing.T, r *routes, change func(*deadletters.Options)) *deadletters.Keeper {
	t.Helper()
	r.seen = make(chan struct{}, 1000)
	o := deadletters.Options{
		App: "shop", Env: component.Env{DataDir: t.TempDir(), Shared: &component.Shared{}}, Inject: r.inject,
		Routes: func(string, string) []string { return nil },
	}
	if change != nil {
		change(&o)
	}
	k := deadletters.New(o)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

var began = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// letter makes the nth dead letter, given up n minutes after the beginning.
func letter(n int, more ...string) *cloudevents.Delivery {
	m := map[string]string{
		"custom": "kept", deadletters.RouteKey: "r", deadletters.ReasonKey: fmt.Sprintf("Reason %d", n), deadletters.KindKey: "dropped",
		deadletters.AttemptsKey: strconv.Itoa(n), deadletters.TimeKey: began.Add(time.Duration(n) * time.Minute).Format(time.RFC3339Nano),
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return &cloudevents.Delivery{Body: fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"s","type":"t","data":{"n":%d}}`, n, n), Metadata: m}
}

func collect(t *testing.T, k *deadletters.Keeper, ds ...*cloudevents.Delivery) {
	t.Helper()
	send := k.Collect("bus", "graves")
	for _, d := range ds {
		if o := send(t.Context(), d); o.Verdict != cloudevents.Ack {
			t.Fatalf("collect: %+v", o)
		}
	}
}

func many(n int) (ds []*cloudevents.Delivery) {
	for i := range n {
		ds = append(ds, letter(i+1))
	}
	return ds
}

func ids(list []deadletters.Letter) string {
	var out []string
	for _, l := range list {
		out = append(out, l.EventID)
	}
	return strings.Join(out, " ")
}

func list(t *testing.T, k *deadletters.Keeper, q deadletters.Query) []deadletters.Letter {
	t.Helper()
	p, err := k.List(t.Context(), &q, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	return p.Letters
}

func all() deadletters.Selection { return deadletters.Selection{All: true} }

func TestCollectKeepsOneOfEach(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	collect(t, k, letter(1), letter(1), letter(2))
	collect(t, k, letter(1, deadletters.AppKey, "shop"), letter(3, deadletters.AppKey, "bakery"))
	if got := ids(list(t, k, deadletters.Query{})); got != "1 2 1" {
		t.Errorf("kept %q", got)
	}
	l := list(t, k, deadletters.Query{})[1]
	whole, err := k.Get(t.Context(), l.ID)
	if err != nil || string(whole.Body) != string(letter(2).Body) || !maps.Equal(whole.Metadata, letter(2).Metadata) || !whole.Time.Equal(began.Add(2*time.Minute)) {
		t.Errorf("got %+v, %v", whole, err)
	}
	if _, err := k.Get(t.Context(), "nosuch"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no such letter: %v", err)
	}
}

func TestCollectTakesAnything(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	collect(t, k, &cloudevents.Delivery{}, &cloudevents.Delivery{Body: []byte{0xff, 0}}, &cloudevents.Delivery{
		Body:     []byte(`{"n":  1}`),
		Metadata: map[string]string{deadletters.AttemptsKey: "many", deadletters.TimeKey: "yesterday", "\xff": "\xff"},
	})
	got := list(t, k, deadletters.Query{})
	if len(got) != 3 || got[0].Attempts != 0 || time.Since(got[0].Time) > time.Hour {
		t.Errorf("kept %+v", got)
	}
	if got := list(t, k, deadletters.Query{Filter: "event.data.n == 1"}); len(got) != 1 {
		t.Errorf("raw JSON is not the data of an event: %+v", got)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	collect(t, k, many(4)...)
	collect(t, k, letter(5, deadletters.RouteKey, "other", deadletters.KindKey, "timeout"))
	one := list(t, k, deadletters.Query{Reason: "reason 3"})
	if ids(one) != "3" {
		t.Fatalf("by reason: %q", ids(one))
	}
	tests := []struct {
		name  string
		query deadletters.Query
		want  string
	}{
		{"everything", deadletters.Query{}, "5 4 3 2 1"},
		{"attempts", deadletters.Query{MinAttempts: 4}, "5 4"},
		{"route", deadletters.Query{Route: "other"}, "5"},
		{"kind", deadletters.Query{Kind: "dropped", MinAttempts: 3}, "4 3"},
		{"pub/sub and topic", deadletters.Query{PubSub: "bus", Topic: "graves", Since: began.Add(5 * time.Minute)}, "5"},
		{"other topic", deadletters.Query{Topic: "graves2"}, ""},
		{"other pub/sub", deadletters.Query{PubSub: "coach"}, ""},
		{"time", deadletters.Query{Since: began.Add(2 * time.Minute), Until: began.Add(3 * time.Minute)}, "3 2"},
		{"filter", deadletters.Query{Filter: "event.data.n > 1 && event.data.n < 4"}, "3 2"},
		{"filter and more", deadletters.Query{Filter: "event.data.n > 1", Route: "other"}, "5"},
		{"filter that fails", deadletters.Query{Filter: "event.data.nothing == 1"}, ""},
		{"id", deadletters.Query{IDs: []string{one[0].ID, "nosuch"}}, "3"},
		{"quotes", deadletters.Query{Topic: "' OR 1=1 --"}, ""},
	}
	for _, tt := range tests {
		if got := ids(list(t, k, tt.query)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, bad := range []deadletters.Query{
		{Filter: "event."}, {Filter: "1"}, {IDs: []string{"a"}, Topic: "t"}, {IDs: make([]string, deadletters.MaxIDs+1)},
	} {
		if _, err := k.List(t.Context(), &bad, 0, ""); fault.KindOf(err) != fault.Invalid {
			t.Errorf("query %.80v: %v", bad, err)
		}
	}
	for _, page := range []string{"x", "-1", "0"} {
		if _, err := k.List(t.Context(), &deadletters.Query{}, 0, page); fault.KindOf(err) != fault.Invalid {
			t.Errorf("page %q: %v", page, err)
		}
	}
	if _, err := k.List(t.Context(), &deadletters.Query{}, deadletters.MaxLimit+1, ""); fault.KindOf(err) != fault.Invalid {
		t.Errorf("limit: %v", err)
	}
}

// TestPages reads more than one stretch of rows, on pages that end anywhere.
func TestPages(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	collect(t, k, many(450)...)
	for filter, want := range map[string]int{"": 450, "event.data.n > 150 && event.data.n <= 250": 100, "event.data.n >= 0": 450} {
		var got []deadletters.Letter
		page := ""
		for {
			p, err := k.List(t.Context(), &deadletters.Query{Filter: filter}, 37, page)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.Letters...)
			if page = p.Next; page == "" {
				break
			}
		}
		seen := map[string]bool{}
		for i, l := range got {
			seen[l.ID] = true
			if i > 0 && l.Time.After(got[i-1].Time) {
				t.Errorf("filter %q: %s comes after %s", filter, l.EventID, got[i-1].EventID)
			}
		}
		if len(got) != want || len(seen) != want {
			t.Errorf("filter %q: %d letters, %d different", filter, len(got), len(seen))
		}
	}
}

func TestReplayHandsOverTheOriginal(t *testing.T) {
	t.Parallel()
	r := &routes{}
	k := keeper(t, r, nil)
	collect(t, k, many(3)...)
	collect(t, k, letter(4, deadletters.ReplaysKey, "2", deadletters.OriginKey, "bus/orders"))
	res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all()})
	if err != nil || res.Matched != 4 || res.Replayed != 4 || res.Left != 0 || len(res.Errors) != 0 {
		t.Errorf("result %+v, %v", res, err)
	}
	want := []string{string(letter(1).Body), string(letter(2).Body), string(letter(3).Body), string(letter(4).Body)}
	if d := cmp.Diff(want, r.bodies()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	last := r.got[3]
	if !maps.Equal(last.Metadata, map[string]string{"custom": "kept"}) || last.Replays != 3 || last.Origin != "bus/orders" || last.Attempt != 0 {
		t.Errorf("handed over %+v", last)
	}
	if got := list(t, k, deadletters.Query{}); len(got) != 0 {
		t.Errorf("left %+v", got)
	}
	if counts, _, err := k.Counts(); err != nil || len(counts) != 0 {
		t.Errorf("counts %v, %v", counts, err)
	}
}

func TestReplayWithAnotherBody(t *testing.T) {
	t.Parallel()
	r := &routes{}
	k := keeper(t, r, nil)
	collect(t, k, many(2)...)
	for _, s := range []deadletters.Selection{all(), {Query: deadletters.Query{Topic: "graves"}}} {
		if _, err := k.Replay(t.Context(), &deadletters.Replay{Selection: s, Body: []byte("mended")}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("of several: %v", err)
		}
	}
	one := list(t, k, deadletters.Query{})[0]
	s := deadletters.Selection{Query: deadletters.Query{IDs: []string{one.ID}}}
	r.say = func(*cloudevents.Delivery) (cloudevents.Outcome, error) {
		return cloudevents.Retried(fault.New(fault.Unavailable, "down"), 0), nil
	}
	if _, err := k.Replay(t.Context(), &deadletters.Replay{Selection: s, Body: []byte("mended")}); err != nil {
		t.Fatal(err)
	}
	if kept, err := k.Get(t.Context(), one.ID); err != nil || string(kept.Body) != string(letter(2).Body) {
		t.Errorf("the letter has become %q, %v", kept.Body, err)
	}
	r.say = nil
	res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: s, Body: []byte("mended")})
	if err != nil || res.Replayed != 1 {
		t.Errorf("result %+v, %v", res, err)
	}
	if d := cmp.Diff([]string{"mended", "mended"}, r.bodies()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestReplayKeepsWhatWasNotTaken(t *testing.T) {
	t.Parallel()
	down := fault.New(fault.Unavailable, "the app is down")
	outcomes := map[string]cloudevents.Outcome{
		"1": cloudevents.Acked(),
		"2": cloudevents.Dropped("no good", nil), // with a new dead letter
		"3": {Verdict: cloudevents.Drop, Reason: "nowhere to go", Discard: true},
		"4": cloudevents.Retried(down, 0),
		"5": cloudevents.Left("stopping"),
	}
	r := &routes{say: func(d *cloudevents.Delivery) (cloudevents.Outcome, error) {
		e, err := cloudevents.Scan(d.Body)
		if err != nil || e.ID() == "6" {
			return cloudevents.Outcome{}, fault.New(fault.NotFound, "no such route")
		}
		return outcomes[e.ID()], nil
	}}
	k := keeper(t, r, nil)
	collect(t, k, many(6)...)
	res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all()})
	if err != nil || res.Matched != 6 || res.Replayed != 1 || res.Failed != 2 || res.Left != 3 || len(res.Errors) != 5 {
		t.Errorf("result %+v, %v", res, err)
	}
	replays := map[string]int{}
	for _, l := range list(t, k, deadletters.Query{}) {
		replays[l.EventID] = l.Replays
	}
	if d := cmp.Diff(map[string]int{"3": 1, "4": 1, "5": 0, "6": 0}, replays); d != "" {
		t.Errorf("kept, with replays (-want +got):\n%s", d)
	}
	text := fmt.Sprint(res.Errors)
	for _, want := range []string{"given up again: no good", "without a new dead letter: nowhere to go", "not delivered: the app is down", "not tried to the end: stopping", "route r does not run here"} {
		if !strings.Contains(text, want) {
			t.Errorf("errors %s lack %q", text, want)
		}
	}
}

func TestReplayIsBounded(t *testing.T) {
	t.Parallel()
	r := &routes{hold: true}
	k := keeper(t, r, nil)
	collect(t, k, many(deadletters.MaxUnderWay+10)...)
	done := make(chan *deadletters.Result, 1)
	go func() {
		res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all()})
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	for range deadletters.MaxUnderWay {
		<-r.seen
	}
	other, err := k.Replay(t.Context(), &deadletters.Replay{Selection: deadletters.Selection{Query: deadletters.Query{Until: began.Add(3 * time.Minute)}}})
	if err != nil || other.Left != 3 || !strings.Contains(other.Errors[0].Error, "another replay") {
		t.Errorf("a second replay of the same: %+v, %v", other, err)
	}
	r.mu.Lock()
	if len(r.held) != deadletters.MaxUnderWay {
		t.Errorf("%d under way", len(r.held))
	}
	r.hold = false
	for _, d := range r.held {
		d.Settle(cloudevents.Acked())
	}
	r.mu.Unlock()
	if res := <-done; res.Replayed != deadletters.MaxUnderWay+10 {
		t.Errorf("result %+v", res)
	}
}

// TestReplayEndsWithItsCaller settles what is under way after the caller is
// gone.
func TestReplayEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	r := &routes{hold: true}
	k := keeper(t, r, nil)
	collect(t, k, many(deadletters.MaxUnderWay+5)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client is gone")
	go func() {
		for range deadletters.MaxUnderWay {
			<-r.seen
		}
		cancel(gone)
	}()
	res, err := k.Replay(ctx, &deadletters.Replay{Selection: all()})
	if !errors.Is(err, gone) || res.Replayed != 0 || res.Left != deadletters.MaxUnderWay+5 {
		t.Errorf("result %+v, %v", res, err)
	}
	for i, d := range r.held {
		if i > 0 {
			d.Settle(cloudevents.Acked())
		}
	}
	for len(list(t, k, deadletters.Query{})) != 6 {
		if t.Context().Err() != nil {
			t.Fatal("what was delivered is not removed")
		}
	}
	r.held[0].Settle(cloudevents.Left("stopping")) // or Close would wait for it
}

func TestReplayKeepsTheRate(t *testing.T) {
	t.Parallel()
	r := &routes{}
	k := keeper(t, r, nil)
	collect(t, k, many(6)...)
	start := time.Now()
	res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all(), Rate: 50})
	if took := time.Since(start); err != nil || res.Replayed != 6 || took < 100*time.Millisecond {
		t.Errorf("%+v in %s, %v", res, took, err)
	}
	for _, rate := range []float64{-1, deadletters.MaxRate + 1} {
		if _, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all(), Rate: rate}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("rate %v: %v", rate, err)
		}
	}
}

func TestReplayElsewhere(t *testing.T) {
	t.Parallel()
	r := &routes{}
	var to []string
	k := keeper(t, r, func(o *deadletters.Options) {
		o.Publish = func(_ context.Context, bus, topic string, body []byte, m map[string]string) error {
			to = append(to, fmt.Sprint(bus, " ", topic, " ", len(body), " ", m))
			if len(to) == 2 {
				return fault.New(fault.Unavailable, "the broker is down")
			}
			return nil
		}
	})
	collect(t, k, letter(1), letter(2))
	res, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all(), To: "bus/a/b"})
	if err != nil || res.Replayed != 1 || res.Left != 1 || len(r.got) != 0 {
		t.Errorf("result %+v, %v", res, err)
	}
	if to[0] != fmt.Sprint("bus a/b ", len(letter(1).Body), " ", map[string]string{"custom": "kept"}) {
		t.Errorf("published %q", to)
	}
	for _, bad := range []string{"bus", "/t", "bus/"} {
		if _, err := k.Replay(t.Context(), &deadletters.Replay{Selection: all(), To: bad}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("to %q: %v", bad, err)
		}
	}
}

func TestNothingIsDoneToWhatNobodyNamed(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	collect(t, k, letter(1))
	for _, s := range []deadletters.Selection{{}, {All: true, Query: deadletters.Query{Topic: "graves"}}} {
		if _, err := k.Replay(t.Context(), &deadletters.Replay{Selection: s}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("replay %+v: %v", s, err)
		}
		if n, _, err := k.Discard(t.Context(), &s); fault.KindOf(err) != fault.Invalid || n != 0 {
			t.Errorf("discard %+v: %d, %v", s, n, err)
		}
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	k := keeper(t, &routes{}, nil)
	if n, lacking, err := k.Discard(t.Context(), &deadletters.Selection{Query: deadletters.Query{IDs: []string{"x"}}}); n != 0 || len(lacking) != 1 || err != nil {
		t.Errorf("without a file: %d %v %v", n, lacking, err)
	}
	collect(t, k, many(5)...)
	id := list(t, k, deadletters.Query{MinAttempts: 5})[0].ID
	if n, lacking, err := k.Discard(t.Context(), &deadletters.Selection{Query: deadletters.Query{IDs: []string{id, id, "x"}}}); n != 1 || len(lacking) != 1 || err != nil {
		t.Errorf("by id: %d %v %v", n, lacking, err)
	}
	if n, _, err := k.Discard(t.Context(), &deadletters.Selection{Query: deadletters.Query{Filter: "event.data.n <= 2"}}); n != 2 || err != nil {
		t.Errorf("by filter: %d %v", n, err)
	}
	if got := ids(list(t, k, deadletters.Query{})); got != "4 3" {
		t.Errorf("left %q", got)
	}
}

// TestSpaceIsGivenBack makes the file small again, whatever way the letters go.
func TestSpaceIsGivenBack(t *testing.T) {
	t.Parallel()
	ways := map[string]func(ctx context.Context, k *deadletters.Keeper) error{
		"discard": func(ctx context.Context, k *deadletters.Keeper) error {
			s := all()
			_, _, err := k.Discard(ctx, &s)
			return err
		},
		"replay": func(ctx context.Context, k *deadletters.Keeper) error {
			_, err := k.Replay(ctx, &deadletters.Replay{Selection: all()})
			return err
		},
	}
	for name, empty := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			k := keeper(t, &routes{}, func(o *deadletters.Options) { o.Env.DataDir = dir })
			for i := range 20 {
				d := letter(i)
				d.Body = bytes.Repeat([]byte("x"), 1<<20)
				collect(t, k, d)
			}
			if err := empty(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(filepath.Join(dir, deadletters.File))
			if err != nil || st.Size() > 10<<20 {
				t.Errorf("%d bytes, %v", st.Size(), err)
			}
		})
	}
}

func TestLettersOutliveTheKeeper(t *testing.T) {
	t.Parallel()
	env := component.Env{DataDir: t.TempDir(), Shared: &component.Shared{}}
	change := func(o *deadletters.Options) { o.Env, o.MaxLetters = env, 3 }
	k := keeper(t, &routes{}, change)
	collect(t, k, many(3)...)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.List(t.Context(), &deadletters.Query{}, 0, ""); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("closed: %v", err)
	}
	again := keeper(t, &routes{}, change)
	if got := ids(list(t, again, deadletters.Query{})); got != "3 2 1" {
		t.Errorf("kept %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if again.Room(ctx) == nil {
		t.Error("it does not know that it is full")
	}
	other := keeper(t, &routes{}, func(o *deadletters.Options) { o.Env, o.App = env, "bakery" })
	if got := list(t, other, deadletters.Query{}); len(got) != 0 {
		t.Errorf("another app sees %+v", got)
	}
}

func TestADamagedFileIsNotTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, deadletters.File), bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	k := keeper(t, &routes{}, func(o *deadletters.Options) { o.Env.DataDir = dir })
	if err := k.Open(t.Context()); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "not a SQLite database") {
		t.Errorf("open: %v", err)
	}
	if o := k.Collect("bus", "graves")(t.Context(), letter(1)); o.Verdict != cloudevents.Retry {
		t.Errorf("collect: %+v", o)
	}
	if err := os.Remove(filepath.Join(dir, deadletters.File)); err != nil {
		t.Fatal(err)
	}
	collect(t, k, letter(1))
}
