// Package etcd is the configuration store "configuration.etcd": keys of an etcd
// cluster, each an item.
//
// It is opened through [Component]. An item's value is the key's, byte for byte,
// and its version the revision of the key's last change. Dapr has none.
//
// Promises: a read sees every change that the cluster has confirmed. A watch
// goes on at the revision where its connection broke, with another member if
// need be; when the cluster has forgotten that revision, or the member has lost
// its leader, the watch ends with an error, and whoever watches again reads what
// was missed.
package etcd

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	client "github.com/penstock-io/penstock/client/etcd"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// Component is "configuration.etcd".
var Component = configuration.Define("etcd", component.About{
	Summary: "Configuration in keys of an etcd cluster",
	Ack:     "A change is delivered until the app has taken it, the last of several alone",
	Limits:  "Values that are no text (UTF-8) are an error. All subscriptions share a connection",
	Scale:   "Every process reads and hears for itself",
	Dapr:    "Dapr has no such configuration store.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: settings
spec:
  type: configuration.etcd
  version: v1
  metadata:
    - name: endpoints
      value: localhost:2379
    - name: keyPrefixPath
      value: settings
`,
}, open)

type options struct {
	client.Options
	KeyPrefixPath string `meta:"keyPrefixPath" doc:"Stands before every key, followed by a slash; without it the keys are those of the whole cluster."`
}

// Check implements component.Checker.
func (o options) Check() error { return o.Options.Check() }

type store struct {
	c       *client.Client
	path    string // before every key
	watches configuration.Watches
}

func open(ctx context.Context, env component.Env, o options) (configuration.Driver, error) {
	s := &store{}
	if o.KeyPrefixPath != "" {
		s.path = o.KeyPrefixPath + "/"
	}
	var err error
	s.c, err = client.Open(ctx, env, o.Options, s.path+"probe")
	if err != nil {
		return nil, err
	}
	return s, nil
}

// atOnce is how many keys one request names: --max-txn-ops of a server that was
// not told otherwise.
const atOnce = 128

// Get implements configuration.Driver. More than atOnce keys are several requests.
func (s *store) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configuration.Item, error) {
	if len(keys) == 0 {
		return s.all(ctx)
	}
	items := make(map[string]configuration.Item, len(keys))
	for part := range slices.Chunk(keys, atOnce) {
		ops := make([]clientv3.Op, len(part))
		for i, key := range part {
			ops[i] = clientv3.OpGet(s.path + key)
		}
		res, err := s.c.Commit(ctx, nil, ops...)
		if err != nil {
			return nil, err
		}
		for i, r := range res.Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				if items[part[i]], err = itemOf(part[i], kv.Value, kv.ModRevision); err != nil {
					return nil, err
				}
			}
		}
	}
	return items, nil
}

// page is how many items are read in one request.
const page = 1000

// all reads every item, as it was when the first page was read.
func (s *store) all(ctx context.Context) (map[string]configuration.Item, error) {
	from, end := s.whole()
	items := map[string]configuration.Item{}
	for revision := int64(0); ; {
		bound, cancel := s.c.Bound(ctx)
		res, err := s.c.Get(bound, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
		cancel()
		if err != nil {
			return nil, client.Classify(err)
		}
		revision = res.Header.Revision
		if len(items)+int(res.Count) > configuration.MaxItems {
			return nil, configuration.TooMany()
		}
		for _, kv := range res.Kvs {
			key := string(kv.Key[len(s.path):])
			if items[key], err = itemOf(key, kv.Value, kv.ModRevision); err != nil {
				return nil, err
			}
			from = string(kv.Key) + "\x00"
		}
		if !res.More {
			return items, nil
		}
	}
}

func itemOf(key string, value []byte, revision int64) (configuration.Item, error) {
	if !utf8.Valid(value) {
		return configuration.Item{}, fault.New(fault.Invalid, "read %q: its value is not a text", key)
	}
	return configuration.Item{Value: string(value), Version: strconv.FormatInt(revision, 10)}, nil
}

// whole is the range of all items.
func (s *store) whole() (from, end string) {
	if s.path == "" {
		return "\x00", "\x00" // from the first key to the last
	}
	return s.path, clientv3.GetPrefixRangeEnd(s.path)
}

// Watch implements configuration.Driver: one watch from the first of the keys to
// the last. The client library goes on where a connection broke.
func (s *store) Watch(ctx context.Context, w configuration.Watch) error {
	ctx, done, err := s.watches.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	from, end := s.whole()
	if len(w.Keys) > 0 {
		from, end = s.path+slices.Min(w.Keys), s.path+slices.Max(w.Keys)+"\x00"
	}
	ctx = clientv3.WithRequireLeader(ctx)
	for res := range s.c.Watch(ctx, from, clientv3.WithRange(end), clientv3.WithCreatedNotify()) {
		if err := res.Err(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return client.Classify(err)
		}
		if res.Created {
			w.Up()
		}
		for _, e := range res.Events {
			w.Changed(strings.TrimPrefix(string(e.Kv.Key), s.path))
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fault.New(fault.Unavailable, "watch keys: the cluster ended it")
}

// Close implements configuration.Driver.
func (s *store) Close(context.Context) error {
	s.watches.End()
	return s.c.Close()
}
