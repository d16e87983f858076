// Package jetstream is the state store "state.jetstream": values in a key/value
// bucket of NATS JetStream.
//
// It is opened through [Component]. The keys are those of Dapr's component where
// that has one; what JetStream cannot take as a key is written in a form of its
// own.
//
// Promises: a change is done when the bucket's stream has it, on as many servers
// as the bucket has replicas. The ETag is the revision. A read of a bucket with
// replicas may be answered by one that is a moment behind.
package jetstream

import (
	"context"
	"errors"
	"regexp"
	"strconv"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.jetstream".
var Component = state.Define("jetstream", component.About{
	Summary: "Values in a key/value bucket of NATS JetStream",
	Ack:     "A change is done when the stream of the bucket has it",
	Limits:  "max_payload of the server for a value, 1 MiB usually. No time to live for single items: the bucket's own is for all of them",
	Scale:   "Any number of processes share a bucket",
	Dapr: "Same bucket, and the same keys where Dapr has one: || becomes a dot. Keys with characters that JetStream does not take, which Dapr cannot save, are kept in an escaped form, and so are keys of an app or namespace with a dot in its name: " +
		"in Dapr's form app a.b with key c is app a with key b.c. ETags and first-write work, by the revision. A key that is not there reads as nothing instead of failing, and a bucket that is not there is made",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.jetstream
  version: v1
  metadata:
    - name: natsURL
      value: nats://localhost:4222
    - name: bucket
      value: penstock
`,
}, open)

type options struct {
	nats.Options
	Bucket   string `meta:"bucket,required" doc:"Name of the bucket."`
	Create   bool   `meta:"createBucket" default:"true" doc:"Makes the bucket when it is not there."`
	Replicas int    `meta:"replicas" default:"1" doc:"Copies of a bucket that is made."`
}

var bucketName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if !bucketName.MatchString(o.Bucket) {
		errs = append(errs, component.OptionErrorf("bucket", "must be made of letters, digits, - and _"))
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		errs = append(errs, component.OptionErrorf("replicas", "must be 1 to 5"))
	}
	return errors.Join(errs...)
}

// parallel is how many changes are under way at once.
const parallel = 32

type store struct {
	conn *nats.Conn
	kv   js.KeyValue
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	conn, err := nats.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	kv, err := conn.JetStream().KeyValue(ctx, o.Bucket)
	if errors.Is(err, js.ErrBucketNotFound) && o.Create {
		kv, err = conn.JetStream().CreateKeyValue(ctx, js.KeyValueConfig{Bucket: o.Bucket, Replicas: o.Replicas})
		if errors.Is(err, js.ErrBucketExists) { // another process was faster
			kv, err = conn.JetStream().KeyValue(ctx, o.Bucket)
		}
	}
	if err != nil {
		_ = conn.Close() // the first error says more
		return nil, fault.Wrap(classify(err), "open bucket %s", o.Bucket)
	}
	return &store{conn: conn, kv: kv}, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true} }

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	return state.GetEach(ctx, keys, r, func(ctx context.Context, key string) (state.Item, error) {
		e, err := s.kv.Get(ctx, stored(key))
		switch {
		case errors.Is(err, js.ErrKeyNotFound):
			return state.Item{}, nil
		case err != nil:
			return state.Item{}, classify(err)
		}
		it := state.Item{Found: true, Value: e.Value(), ETag: strconv.FormatUint(e.Revision(), 10)}
		if it.Value == nil {
			it.Value = []byte{}
		}
		return it, nil
	})
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, func(ctx context.Context, c *state.Change) error {
		return classify(s.change(ctx, c))
	})
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	key := stored(c.Key)
	if c.ETag != nil {
		revision, err := strconv.ParseUint(*c.ETag, 10, 64)
		if err != nil || revision == 0 {
			return fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		if c.Delete {
			return s.kv.Delete(ctx, key, js.LastRevision(revision))
		}
		_, err = s.kv.Update(ctx, key, c.Value, revision)
		return err
	}
	var err error
	switch {
	case c.Delete:
		err = s.kv.Delete(ctx, key)
	case c.FirstWrite:
		err = s.create(ctx, key, c.Value)
	default:
		_, err = s.kv.Put(ctx, key, c.Value)
	}
	return err
}

// create saves a key that is not there. The library puts the value after the
// mark that a delete left, and takes it for a value when another delete has left
// a newer one meanwhile: only a value that is read says that the key is there.
func (s *store) create(ctx context.Context, key string, value []byte) error {
	for {
		_, err := s.kv.Create(ctx, key, value)
		if fault.KindOf(classify(err)) != fault.Conflict {
			return err
		}
		if _, gone := s.kv.Get(ctx, key); !errors.Is(gone, js.ErrKeyNotFound) {
			return err
		}
	}
}

// classify gives an error of the library its kind.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, js.ErrKeyExists), errors.Is(err, js.ErrKeyRevisionMismatch), wrongRevision(err):
		return fault.New(fault.Conflict, "the item has another ETag, is not there, or is there already")
	case errors.Is(err, js.ErrBucketNotFound):
		return fault.New(fault.NotFound, "there is no such bucket, and createBucket is false")
	}
	return nats.Classify(err)
}

// wrongRevision tells the server's answer to a revision that is not the last.
func wrongRevision(err error) bool {
	e, ok := errors.AsType[*js.APIError](err)
	return ok && (e.ErrorCode == js.JSErrCodeStreamWrongLastSequence || e.ErrorCode == js.JSErrCodeStreamWrongLastSequenceConstant)
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error { return s.conn.Close() }
