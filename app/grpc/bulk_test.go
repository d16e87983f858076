package grpc_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
)

func deliveries(t *testing.T, n int) []*cloudevents.Delivery {
	t.Helper()
	out := make([]*cloudevents.Delivery, n)
	for i := range out {
		out[i] = delivery(t, i)
	}
	return out
}

func shorts(list []cloudevents.Outcome) string {
	var out []string
	for _, o := range list {
		out = append(out, short(o))
	}
	return strings.Join(out, "; ")
}

// allSaid answers every entry alike.
func allSaid(s rtv1.TopicEventResponse_TopicEventResponseStatus) func(context.Context, *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	return func(_ context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
		m := &rtv1.TopicEventBulkResponse{}
		for _, e := range r.GetEntries() {
			m.Statuses = append(m.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId(), Status: s})
		}
		return m, nil
	}
}

func TestBulkGivesEachEntryItsOutcome(t *testing.T) {
	t.Parallel()
	var got *rtv1.TopicEventBulkRequest
	c := connect(t, appgrpc.Options{}, &fake{bulk: func(_ context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
		got = r
		m := &rtv1.TopicEventBulkResponse{Statuses: []*rtv1.TopicEventBulkResponseEntry{{EntryId: "of nobody", Status: rtv1.TopicEventResponse_DROP}}}
		for i, e := range r.GetEntries() {
			if i < 4 { // the fifth is left out
				m.Statuses = append(m.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId(), Status: rtv1.TopicEventResponse_TopicEventResponseStatus(i)})
			}
		}
		return m, nil
	}})
	ds := deliveries(t, 5)
	ds[0].Metadata = map[string]string{"k": "v\xff"}
	out := shorts(c.Bulk(t.Context(), orders, ds, time.Minute))
	if want := "ack; retry (unavailable); drop (dropped); retry (internal); retry (internal)"; out != want {
		t.Errorf("outcomes = %s, want %s", out, want)
	}
	if got.GetPath() != "/orders" || got.GetTopic() != "orders" || got.GetPubsubName() != "bus" || got.GetType() != "com.dapr.event.sent.bulk" || got.GetId() == "" {
		t.Errorf("request = %v", got)
	}
	e := got.GetEntries()[0]
	ce := e.GetCloudEvent()
	if ce.GetId() != "0" || string(ce.GetData()) != "hello 0" || ce.GetExtensions().GetFields()["traceparent"].GetStringValue() != parent || e.GetContentType() != "application/cloudevents+json" {
		t.Errorf("entry = %v", e)
	}
	if diff := cmp.Diff(map[string]string{"k": "v%FF"}, e.GetMetadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestBulkOfRawPayloads(t *testing.T) {
	t.Parallel()
	var got *rtv1.TopicEventBulkRequest
	c := connect(t, appgrpc.Options{}, &fake{bulk: func(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
		got = r
		return allSaid(0)(ctx, r)
	}})
	d := delivery(t, 1)
	d.Body = []byte("\x00raw")
	if out := c.Bulk(t.Context(), &app.Address{Raw: true}, []*cloudevents.Delivery{d}, 0); out[0].Verdict != cloudevents.Ack {
		t.Error(out)
	}
	if e := got.GetEntries()[0]; string(e.GetBytes()) != "\x00raw" || e.GetContentType() != "application/octet-stream" {
		t.Errorf("entry = %v", e)
	}
}

func TestBulkAnswersForAll(t *testing.T) {
	t.Parallel()
	fails := func(c codes.Code) *fake {
		return &fake{bulk: func(context.Context, *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
			return nil, status.Error(c, "no")
		}}
	}
	for name, r := range map[string]struct {
		app  *fake
		want string
	}{
		"unimplemented": {&fake{}, "drop, no letter (invalid)"},
		"unavailable":   {fails(codes.Unavailable), "retry (unavailable)"},
		"invalid":       {fails(codes.InvalidArgument), "retry (invalid)"},
	} {
		out := connect(t, appgrpc.Options{}, r.app).Bulk(t.Context(), orders, deliveries(t, 2), time.Minute)
		if got := shorts(out); got != r.want+"; "+r.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestBulkOfAnAppWithoutBulk has an app of an SDK that does not know bulk, whose
// events Dapr drops.
func TestBulkOfAnAppWithoutBulk(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	c := connect(t, appgrpc.Options{}, &fake{event: func(_ context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		if r.GetTopic() != orders.Topic || r.GetPath() != orders.Path {
			t.Errorf("event of %s at %s", r.GetTopic(), r.GetPath())
		}
		if n.Add(1) == 2 {
			return &rtv1.TopicEventResponse{Status: rtv1.TopicEventResponse_RETRY}, nil
		}
		return new(rtv1.TopicEventResponse), nil
	}})
	out := c.Bulk(t.Context(), orders, deliveries(t, 3), time.Minute)
	if len(out) != 3 || out[0].Verdict != cloudevents.Ack || out[1].Verdict != cloudevents.Retry || out[2].Verdict != cloudevents.Ack || n.Load() != 3 {
		t.Errorf("%d calls: %s", n.Load(), shorts(out))
	}
}

// TestBulkOutOfTime has an app that is slow with the first event: those behind it
// were not tried, and must not be given up for that.
func TestBulkOutOfTime(t *testing.T) {
	t.Parallel()
	c := connect(t, appgrpc.Options{}, &fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	out := c.Bulk(t.Context(), orders, deliveries(t, 3), 2*time.Second)
	for i, o := range out {
		if untried := errors.Is(o.Err, resilience.ErrOpen); o.Verdict != cloudevents.Retry || untried != (i > 0) {
			t.Errorf("event %d: %s, untried %t", i, o.Verdict, untried)
		}
	}
}

// TestBulkAlpha has an app with the older method alone: the newer one is tried
// once. Another app at the same place, with the newer one alone, is found too.
func TestBulkAlpha(t *testing.T) {
	t.Parallel()
	var newer, older atomic.Int32
	var old atomic.Bool
	old.Store(true)
	counted := func(n *atomic.Int32, has func() bool) func(context.Context, *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
		return func(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
			n.Add(1)
			if !has() {
				return nil, errUnimplemented
			}
			return allSaid(rtv1.TopicEventResponse_SUCCESS)(ctx, r)
		}
	}
	c := connect(t, appgrpc.Options{},
		&fake{bulk: counted(&newer, func() bool { return !old.Load() })}, &alpha{bulk: counted(&older, old.Load)})
	deliver := func() {
		t.Helper()
		if got := shorts(c.Bulk(t.Context(), orders, deliveries(t, 1), time.Minute)); got != "ack" {
			t.Errorf("outcome = %s", got)
		}
	}
	for range 3 {
		deliver()
	}
	if newer.Load() != 1 || older.Load() != 3 {
		t.Errorf("%d and %d calls, want 1 and 3", newer.Load(), older.Load())
	}
	old.Store(false)
	for range 3 {
		deliver()
	}
	if newer.Load() != 4 || older.Load() != 4 {
		t.Errorf("%d and %d calls, want 4 and 4", newer.Load(), older.Load())
	}
}

// TestBulkIsSplit keeps a bulk of events that are large together below what a
// server takes.
func TestBulkIsSplit(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	c := connect(t, appgrpc.Options{}, &fake{bulk: func(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
		calls.Add(1)
		return allSaid(rtv1.TopicEventResponse_SUCCESS)(ctx, r)
	}})
	ds := make([]*cloudevents.Delivery, 10)
	for i := range ds {
		ds[i] = &cloudevents.Delivery{Event: scan(t, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"`+strings.Repeat("x", 1<<20)+`"}`)}
	}
	for i, o := range c.Bulk(t.Context(), orders, ds, time.Minute) {
		if o.Verdict != cloudevents.Ack {
			t.Errorf("entry %d: %s: %v", i, short(o), o.Err)
		}
	}
	if calls.Load() != 4 {
		t.Errorf("%d calls, want 4", calls.Load())
	}
}
