package pluggable

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

const (
	stateService       = "dapr.proto.components.v1.StateStore"
	transactionService = "dapr.proto.components.v1.TransactionalStateStore"
	sizeService        = "dapr.proto.components.v1.TransactionalStoreMultiMaxSize"

	// parallelChanges is how many changes are under way at once.
	parallelChanges = 10
	expiryKey       = "ttlExpireTime"
)

// stateStore is a state store of a program.
type stateStore struct {
	*link
	features state.Features
}

func openState(path string) func(context.Context, component.Env, map[string]string) (state.Driver, error) {
	return func(ctx context.Context, env component.Env, options map[string]string) (state.Driver, error) {
		s, asked := &stateStore{}, false
		l, err := openLink(ctx, path, env, func(ctx context.Context, conn *grpc.ClientConn) error {
			var has map[string]bool
			if !asked { // a later process must serve the same
				var err error
				if has, err = serves(ctx, conn, stateService, transactionService, sizeService); err != nil {
					return err
				}
				if !has[stateService] {
					return fault.New(fault.Invalid, "find %s: the program does not serve it", stateService)
				}
			}
			_, err := components.NewStateStoreClient(conn).Init(ctx, &components.InitRequest{Metadata: &components.MetadataRequest{Properties: options}})
			if err == nil && !asked {
				s.features, err = featuresOf(ctx, conn, has)
				asked = err == nil
			}
			return failed(err, "init state store")
		})
		if err != nil {
			return nil, err
		}
		s.link = l
		return s, nil
	}
}

// featuresOf asks what the store can do.
func featuresOf(ctx context.Context, conn *grpc.ClientConn, has map[string]bool) (f state.Features, err error) {
	r, err := components.NewStateStoreClient(conn).Features(ctx, &components.FeaturesRequest{})
	if err != nil {
		return f, err
	}
	f.NoTransactions = true
	for _, word := range r.GetFeatures() {
		switch strings.ToUpper(word) {
		case "ETAG":
			f.ETag = true
		case "TTL":
			f.TTL = true
		case "TRANSACTIONAL":
			f.NoTransactions = !has[transactionService]
		}
	}
	if has[sizeService] && !f.NoTransactions {
		size, err := components.NewTransactionalStoreMultiMaxSizeClient(conn).MultiMaxSize(ctx, &components.MultiMaxSizeRequest{})
		if err != nil {
			return f, err
		}
		f.MaxChanges = int(max(size.GetMaxSize(), 0)) // less than one is no limit
	}
	return f, nil
}

// Features implements [state.Featured].
func (s *stateStore) Features() state.Features { return s.features }

// Get implements [state.Driver]. Many keys are asked for at once, unless the
// program cannot.
func (s *stateStore) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	conn, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	c := components.NewStateStoreClient(conn)
	if len(keys) > 1 {
		items, err := getAll(ctx, c, keys, r)
		if status.Code(err) != codes.Unimplemented {
			return items, failed(err, "get values")
		}
	}
	items := make([]state.Item, len(keys))
	state.Each(ctx, len(keys), max(r.Parallel, 1), func(ctx context.Context, i int) {
		res, err := c.Get(ctx, getRequest(keys[i], r))
		if err != nil {
			items[i].Err = failed(err, "get value")
			return
		}
		items[i] = itemOf(res.GetData(), res.GetEtag(), res.GetMetadata())
	})
	if len(keys) == 1 && items[0].Err != nil {
		return nil, items[0].Err
	}
	return items, nil
}

func getAll(ctx context.Context, c components.StateStoreClient, keys []string, r state.Read) ([]state.Item, error) {
	req := &components.BulkGetRequest{Options: &components.BulkGetRequestOptions{Parallelism: int64(r.Parallel)}}
	at := make(map[string][]int, len(keys))
	for i, key := range keys {
		if at[key] == nil {
			req.Items = append(req.Items, getRequest(key, r))
		}
		at[key] = append(at[key], i)
	}
	res, err := c.BulkGet(ctx, req)
	if err != nil {
		return nil, err
	}
	items := make([]state.Item, len(keys))
	for _, found := range res.GetItems() {
		it := itemOf(found.GetData(), found.GetEtag(), found.GetMetadata())
		if text := found.GetError(); text != "" {
			it = state.Item{Err: fault.New(fault.Internal, "get value: %s", line(text))}
		}
		for _, i := range at[found.GetKey()] {
			items[i] = it
		}
	}
	return items, nil
}

func getRequest(key string, r state.Read) *components.GetRequest {
	return &components.GetRequest{Key: key, Metadata: r.Metadata, Consistency: consistency(r.Strong)}
}

// itemOf makes an item of an answer; one with neither data nor version is none.
func itemOf(data []byte, etag *components.Etag, metadata map[string]string) state.Item {
	it := state.Item{Found: len(data) > 0 || etag.GetValue() != "", Value: data, ETag: etag.GetValue()}
	if it.Found && it.Value == nil {
		it.Value = []byte{}
	}
	if at, err := time.Parse(time.RFC3339, metadata[expiryKey]); err == nil {
		it.Expires = at
	}
	return it
}

func consistency(strong bool) components.StateOptions_StateConsistency {
	if strong {
		return components.StateOptions_CONSISTENCY_STRONG
	}
	return components.StateOptions_CONSISTENCY_UNSPECIFIED
}

// Apply implements [state.Driver]: a call for each change, since of one for many
// nobody would know which of them failed.
func (s *stateStore) Apply(ctx context.Context, changes []state.Change) error {
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	c := components.NewStateStoreClient(conn)
	return state.ApplyEach(ctx, changes, parallelChanges, func(ctx context.Context, change *state.Change) (err error) {
		if change.Delete {
			_, err = c.Delete(ctx, deleteRequest(change))
		} else {
			_, err = c.Set(ctx, setRequest(change))
		}
		return failed(err, "change value")
	})
}

// Transact implements [state.Transactor].
func (s *stateStore) Transact(ctx context.Context, changes []state.Change) error {
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	req := &components.TransactionalStateRequest{}
	for i := range changes {
		op := &components.TransactionalStateOperation{}
		if changes[i].Delete {
			op.Request = &components.TransactionalStateOperation_Delete{Delete: deleteRequest(&changes[i])}
		} else {
			op.Request = &components.TransactionalStateOperation_Set{Set: setRequest(&changes[i])}
		}
		req.Operations = append(req.Operations, op)
	}
	_, err = components.NewTransactionalStateStoreClient(conn).Transact(ctx, req)
	return failed(err, "carry out transaction")
}

func deleteRequest(c *state.Change) *components.DeleteRequest {
	return &components.DeleteRequest{Key: c.Key, Etag: etagOf(c), Metadata: c.Metadata, Options: optionsOf(c)}
}

func setRequest(c *state.Change) *components.SetRequest {
	r := &components.SetRequest{Key: c.Key, Value: c.Value, Etag: etagOf(c), Metadata: withTTL(c.Metadata, c.TTL), Options: optionsOf(c)}
	if !c.Binary {
		r.ContentType = "application/json"
	}
	return r
}

func etagOf(c *state.Change) *components.Etag {
	if c.ETag == nil {
		return nil
	}
	return &components.Etag{Value: *c.ETag}
}

func optionsOf(c *state.Change) *components.StateOptions {
	o := &components.StateOptions{Consistency: consistency(c.Strong)}
	if c.FirstWrite {
		o.Concurrency = components.StateOptions_CONCURRENCY_FIRST_WRITE
	}
	return o
}

// withTTL is the metadata of a request with its time to live, as programs read
// it.
func withTTL(metadata map[string]string, ttl time.Duration) map[string]string {
	if ttl == 0 {
		return metadata
	}
	out := map[string]string{}
	maps.Copy(out, metadata)
	maps.DeleteFunc(out, func(k, _ string) bool { return strings.EqualFold(k, ttlKey) })
	out[ttlKey] = "-1"
	if ttl > 0 {
		out[ttlKey] = strconv.FormatInt(int64(state.Whole(ttl)/time.Second), 10)
	}
	return out
}

func stateAbout(name string) component.About {
	return component.About{
		Summary: "The pluggable state store behind the socket " + name,
		Ack:     "The component answered",
		Order:   "Changes of one key one after the other",
		Limits:  "Messages of 16 MiB; 10 changes of a request under way at once",
		Scale:   "The component's",
		Dapr:    "Several changes are a call each, so that each has an answer of its own; queries are not passed on; Init comes again when the component's process does",
		Example: example("state", name),
	}
}
