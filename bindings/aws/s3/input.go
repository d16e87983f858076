package s3

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// fetches is how many contents are fetched at a time.
const fetches = 8

// Read implements bindings.Reader.
func (b *both) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	take := func(ctx context.Context, m *queue.Message) error { return b.take(ctx, m, emit) }
	if !b.o.WithContent {
		return b.queue.Read(ctx, take)
	}
	group, ctx := errgroup.WithContext(ctx)
	for range fetches {
		group.Go(func() error { return b.queue.Read(ctx, take) })
	}
	return group.Wait()
}

// take hands the events of a notification to emit. An error means that some were
// not taken.
func (b *both) take(ctx context.Context, m *queue.Message, emit cloudevents.EmitFunc) error {
	records, test := recordsOf(m.Body)
	if test {
		m.Settle(cloudevents.Acked())
		return nil
	}
	if len(records) == 0 { // no notification: whoever gets it decides
		d, err := b.foreign(m)
		if err != nil {
			return err
		}
		return emit(ctx, d)
	}
	all := &shares{left: len(records), settle: m.Settle}
	for i, raw := range records {
		d, err := b.delivery(ctx, raw, m.ID+"-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		d.Attempt, d.Settle = m.Attempt, all.one()
		if err := emit(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// shares settles a notification when all of its events are.
type shares struct {
	settle func(cloudevents.Outcome)

	mu    sync.Mutex // guards what follows
	left  int
	worst cloudevents.Outcome
	any   bool
}

// one returns the function that settles one event.
func (s *shares) one() func(cloudevents.Outcome) {
	var once sync.Once
	return func(o cloudevents.Outcome) {
		once.Do(func() {
			s.mu.Lock()
			if !s.any || rank(o) > rank(s.worst) || rank(o) == rank(s.worst) && o.After > s.worst.After {
				s.worst, s.any = o, true
			}
			s.left--
			last := s.left == 0
			s.mu.Unlock()
			if last {
				s.settle(s.worst)
			}
		})
	}
}

// rank orders outcomes: with one event to be tried again, none may be lost.
func rank(o cloudevents.Outcome) int {
	switch o.Verdict {
	case cloudevents.Ack:
		return 0
	case cloudevents.Drop:
		return 1
	case cloudevents.Leave:
		return 2
	default: // retry: it has a delay to keep
		return 3
	}
}

// record is what a notification says of one object.
type record struct {
	EventSource, EventName, AwsRegion string
	EventTime                         time.Time
	ResponseElements                  map[string]string
	S3                                struct {
		Bucket struct{ Name string }
		Object struct {
			Key, ETag, VersionID, Sequencer string
			Size                            int64
		}
	}
}

// recordsOf takes a notification apart, out of the envelope of SNS if it came
// through a topic. Test tells that it only says that notifications will come.
func recordsOf(body string) (records []json.RawMessage, test bool) {
	var n struct {
		Records       []json.RawMessage
		Event         string
		Type, Message string
	}
	if json.Unmarshal([]byte(body), &n) != nil {
		return nil, false
	}
	if n.Type == "Notification" && n.Message != "" {
		return recordsOf(n.Message)
	}
	return n.Records, n.Event == "s3:TestEvent"
}

// foreign makes the event of a message that is no notification.
func (b *both) foreign(m *queue.Message) (*cloudevents.Delivery, error) {
	event, err := bindings.Received{
		ID: m.ID, Source: "sqs:" + url.PathEscape(b.o.QueueName), Type: "io.penstock.sqs.message", Time: m.Sent, Data: []byte(m.Body),
	}.Event()
	if err != nil {
		return nil, err
	}
	return &cloudevents.Delivery{Body: []byte(m.Body), Event: event, Metadata: m.Texts(), Attempt: m.Attempt, Origin: b.name, Settle: m.Settle}, nil
}

// delivery makes the event of a record, with the attributes that the
// specification of CloudEvents gives those of S3.
func (b *both) delivery(ctx context.Context, raw json.RawMessage, id string) (*cloudevents.Delivery, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil { // no record: passed on as it is
		r = record{}
	}
	o := &r.S3.Object
	if key, err := url.QueryUnescape(o.Key); err == nil {
		o.Key = key
	}
	if a, b := r.ResponseElements["x-amz-request-id"], r.ResponseElements["x-amz-id-2"]; a != "" && b != "" {
		id = a + "." + b
	}
	d := &cloudevents.Delivery{Body: raw, Key: o.Key, Origin: b.name, Metadata: map[string]string{
		"bucket": r.S3.Bucket.Name, "key": o.Key, "eventName": r.EventName, "size": strconv.FormatInt(o.Size, 10), "eTag": o.ETag,
	}}
	for name, v := range map[string]string{"versionId": o.VersionID, "sequencer": o.Sequencer} {
		if v != "" {
			d.Metadata[name] = v
		}
	}
	received := bindings.Received{
		ID: id, Source: cmp.Or(r.EventSource, "aws:s3") + "." + r.AwsRegion + "." + r.S3.Bucket.Name,
		Type: "com.amazonaws.s3." + cmp.Or(r.EventName, "unknown"), Subject: o.Key, Time: r.EventTime, ContentType: "application/json", Data: raw,
	}
	if b.o.WithContent && o.Key != "" {
		data, contentType, err := b.object(ctx, &r)
		switch {
		case err != nil:
			return nil, err
		case contentType == "":
			d.Metadata["content"] = "none"
		default:
			d.Body, received.Data, received.ContentType = data, data, contentType
		}
	}
	event, err := received.Event()
	d.Event = event
	return d, err
}

// object fetches what a record tells of. The content type is empty when there is
// nothing to fetch: the object is gone, or larger than may be.
func (b *both) object(ctx context.Context, r *record) (data []byte, contentType string, err error) {
	ctx, done, err := b.calls.Begin(ctx)
	if err != nil {
		return nil, "", err
	}
	defer done()
	o := &r.S3.Object
	in := &s3.GetObjectInput{Bucket: given(cmp.Or(r.S3.Bucket.Name, b.o.Bucket)), Key: &o.Key, VersionId: given(o.VersionID)}
	data, contentType, err = b.fetch(ctx, in)
	if errors.Is(err, errTooLarge) || fault.KindOf(err) == fault.NotFound && err != nil {
		return nil, "", nil
	}
	return data, cmp.Or(contentType, "application/octet-stream"), err
}
