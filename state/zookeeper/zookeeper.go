// Package zookeeper is the state store "state.zookeeper": values in nodes of
// Apache ZooKeeper.
//
// It is opened through [Component]. The nodes are those of Dapr's component; a
// key that cannot be the name of a node is written in a form of its own.
//
// Promises: a change is confirmed by the majority of the servers before it
// returns. The ETag is the node's version, which begins at 0 again when an item
// is deleted and saved anew. A transaction is one of ZooKeeper's.
package zookeeper

import (
	"context"
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.zookeeper".
var Component = state.Define("zookeeper", component.About{
	Summary: "Values in nodes of Apache ZooKeeper",
	Ack:     "A change is done when the majority of the servers has it",
	Limits:  "maxBufferSize (1 MiB) for a value and for a transaction, and jute.maxbuffer of the servers, which must not be less. All keys of keyPrefixPath are children of one node",
	Scale:   "Any number of processes share a store",
	Dapr: "Same nodes where Dapr has one for a key, but keyPrefixPath may be without its slash, and is made. Keys with a slash or with characters that ZooKeeper does not take are kept in an escaped form: in Dapr's, a key with .. reaches the keys of other apps. " +
		"First-write and transactions work; deleting what is not there with an ETag is a conflict. There is no time to live, as in Dapr",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.zookeeper
  version: v1
  metadata:
    - name: servers
      value: localhost:2181
    - name: sessionTimeout
      value: 10s
    - name: keyPrefixPath
      value: /penstock
`,
}, open)

type options struct {
	Servers       []string      `meta:"servers,required" doc:"Addresses of the servers." example:"10.0.0.1:2181,10.0.0.2:2181"`
	Session       time.Duration `meta:"sessionTimeout" default:"10s" doc:"How long a server keeps the session of a client that it does not hear of."`
	MaxBuffer     int           `meta:"maxBufferSize" default:"1048576" doc:"Largest answer, and largest value, in bytes."`
	MaxConnBuffer int           `meta:"maxConnBufferSize" default:"1048576" doc:"Size of the connection's buffer, in bytes."`
	KeyPrefixPath string        `meta:"keyPrefixPath" doc:"Node whose children the items are; the root when empty." example:"/penstock"`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	if o.Session < time.Second {
		errs = append(errs, component.OptionErrorf("sessionTimeout", "must be a second at least"))
	}
	if o.MaxBuffer < least {
		errs = append(errs, component.OptionErrorf("maxBufferSize", "must be %d at least", least))
	}
	if o.MaxConnBuffer < least {
		errs = append(errs, component.OptionErrorf("maxConnBufferSize", "must be %d at least", least))
	}
	trimmed := strings.Trim(o.KeyPrefixPath, "/")
	for part := range strings.SplitSeq(trimmed, "/") {
		if trimmed != "" && !legal(part) {
			errs = append(errs, component.OptionErrorf("keyPrefixPath", "%q cannot be the name of a node", part))
		}
	}
	return errors.Join(errs...)
}

// root is the node whose children the items are.
func (o options) root() string { return path.Join("/", o.KeyPrefixPath) }

const (
	// least is the smallest buffer, in bytes, and overhead what a request needs
	// beside the values.
	least    = 4 << 10
	overhead = 1 << 10
	// parallel is how many requests are under way at once.
	parallel = 32
	// callTimeout bounds one request.
	callTimeout = 10 * time.Second
)

type store struct {
	conn *zk.Conn
	root string // ends with a slash
	most int    // bytes of a request
}

func open(ctx context.Context, _ component.Env, o options) (state.Driver, error) {
	conn, _, err := zk.Connect(o.Servers, o.Session, zk.WithLogger(silent{}), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(o.MaxBuffer), zk.WithMaxConnBufferSize(o.MaxConnBuffer))
	if err != nil {
		return nil, fault.New(fault.Invalid, "connect to ZooKeeper: %w", err)
	}
	s := &store{conn: conn, root: strings.TrimSuffix(o.root(), "/") + "/", most: o.MaxBuffer - overhead}
	if err := s.makeRoot(ctx, o.root()); err != nil {
		conn.Close()
		return nil, fault.Wrap(err, "connect to ZooKeeper")
	}
	return s, nil
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// makeRoot makes the node above the items, and those above it.
func (s *store) makeRoot(ctx context.Context, root string) error {
	there, err := ask(ctx, func() (bool, error) {
		there, _, err := s.conn.Exists(root)
		return there, err
	})
	if err != nil || there {
		return err
	}
	var node strings.Builder
	for part := range strings.SplitSeq(strings.Trim(root, "/"), "/") {
		node.WriteString("/" + part)
		_, err := ask(ctx, func() (string, error) { return s.conn.Create(node.String(), nil, 0, zk.WorldACL(zk.PermAll)) })
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// ask runs a call of the library, which looks at no context, and does not wait
// for it longer than until ctx ends.
func ask[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := make(chan answer, 1)
	go func() {
		v, err := call()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.value, classify(a.err)
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true} }

// Get implements state.Driver. A strong read first has the server catch up with
// the leader.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	if r.Strong && len(keys) > 0 {
		if _, err := ask(ctx, func() (string, error) { return s.conn.Sync(s.root[:max(1, len(s.root)-1)]) }); err != nil {
			return nil, err
		}
	}
	return state.GetEach(ctx, keys, r, func(ctx context.Context, key string) (state.Item, error) {
		it, err := ask(ctx, func() (state.Item, error) {
			value, stat, err := s.conn.Get(s.node(key))
			if err != nil {
				return state.Item{}, err
			}
			if value == nil {
				value = []byte{}
			}
			return state.Item{Found: true, Value: value, ETag: strconv.Itoa(int(stat.Version))}, nil
		})
		if errors.Is(err, zk.ErrNoNode) {
			return state.Item{}, nil
		}
		return it, err
	})
}

// Keys implements state.Lister. The token is the last key of the page before.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) ([]string, string, error) {
	names, err := ask(ctx, func() ([]string, error) {
		names, _, err := s.conn.Children(s.root[:max(1, len(s.root)-1)])
		return names, err
	})
	if err != nil {
		return nil, "", err
	}
	keys, next := page(names, prefix, token, limit)
	return keys, next, nil
}

// classify gives an error of the library its kind; the library's own stays in the
// chain.
func classify(err error) error {
	is := func(list ...error) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return nil
	case is(zk.ErrNoNode, zk.ErrNodeExists, zk.ErrBadVersion):
		return fault.New(fault.Conflict, "the item has another ETag, is not there, or is there already (%w)", err)
	case is(zk.ErrNoAuth, zk.ErrAuthFailed):
		return fault.As(fault.Denied, err)
	case is(zk.ErrInvalidPath, zk.ErrBadArguments, zk.ErrInvalidACL, zk.ErrInvalidFlags, zk.ErrNotEmpty):
		return fault.As(fault.Invalid, err)
	}
	if kind := fault.KindOf(err); kind != fault.Internal {
		return fault.As(kind, err)
	}
	return fault.As(fault.Unavailable, err) // lost connections and sessions
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error {
	s.conn.Close()
	return nil
}
