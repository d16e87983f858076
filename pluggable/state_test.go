package pluggable_test

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/state/inmemory"
	"github.com/penstock-io/penstock/test/conform"
)

// shelf is the state store of a program. What it keeps is in memory.
type shelf struct {
	components.UnimplementedStateStoreServer
	components.UnimplementedTransactionalStateStoreServer
	components.UnimplementedTransactionalStoreMultiMaxSizeServer

	kept     state.Driver
	features []string
	most     int64
	noBulk   bool // BulkGet is not implemented

	mu    sync.Mutex
	inits []map[string]string
	last  *components.SetRequest
}

func newShelf(t *testing.T, features ...string) *shelf {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	d, err := inmemory.Component.Open(ctx, component.Env{Name: "shelf", Logger: slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return &shelf{kept: d.(state.Driver), features: features}
}

func (s *shelf) Init(_ context.Context, r *components.InitRequest) (*components.InitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inits = append(s.inits, r.GetMetadata().GetProperties())
	return &components.InitResponse{}, nil
}

func (s *shelf) Features(context.Context, *components.FeaturesRequest) (*components.FeaturesResponse, error) {
	return &components.FeaturesResponse{Features: s.features}, nil
}

func (s *shelf) MultiMaxSize(context.Context, *components.MultiMaxSizeRequest) (*components.MultiMaxSizeResponse, error) {
	return &components.MultiMaxSizeResponse{MaxSize: s.most}, nil
}

func (s *shelf) read(ctx context.Context, key string) (state.Item, map[string]string, error) {
	items, err := s.kept.Get(ctx, []string{key}, state.Read{Parallel: 1})
	if err != nil {
		return state.Item{}, nil, err
	}
	metadata := map[string]string{}
	if at := items[0].Expires; !at.IsZero() {
		metadata["ttlExpireTime"] = at.UTC().Format(time.RFC3339)
	}
	return items[0], metadata, nil
}

func tag(it state.Item) *components.Etag {
	if it.ETag == "" {
		return nil
	}
	return &components.Etag{Value: it.ETag}
}

func (s *shelf) Get(ctx context.Context, r *components.GetRequest) (*components.GetResponse, error) {
	it, metadata, err := s.read(ctx, r.GetKey())
	return &components.GetResponse{Data: it.Value, Etag: tag(it), Metadata: metadata}, err
}

func (s *shelf) BulkGet(ctx context.Context, r *components.BulkGetRequest) (*components.BulkGetResponse, error) {
	if s.noBulk {
		return nil, status.Error(codes.Unimplemented, "one at a time")
	}
	res := &components.BulkGetResponse{}
	for _, one := range r.GetItems() {
		it, metadata, err := s.read(ctx, one.GetKey())
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(one.GetKey(), "broken") {
			res.Items = append(res.Items, &components.BulkStateItem{Key: one.GetKey(), Error: "it is\nbroken."})
		} else if it.Found {
			res.Items = append(res.Items, &components.BulkStateItem{Key: one.GetKey(), Data: it.Value, Etag: tag(it), Metadata: metadata})
		}
	}
	return res, nil
}

func (s *shelf) set(r *components.SetRequest) state.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
	c := state.Change{Key: r.GetKey(), Value: r.GetValue(), Binary: r.GetContentType() == ""}
	if r.GetEtag() != nil {
		c.ETag = &r.Etag.Value
	}
	c.FirstWrite = r.GetOptions().GetConcurrency() == components.StateOptions_CONCURRENCY_FIRST_WRITE
	if n, err := strconv.Atoi(r.GetMetadata()["ttlInSeconds"]); err == nil {
		c.TTL = time.Duration(n) * time.Second
	}
	return c
}

func toDelete(r *components.DeleteRequest) state.Change {
	c := state.Change{Key: r.GetKey(), Delete: true}
	if r.GetEtag() != nil {
		c.ETag = &r.Etag.Value
	}
	return c
}

// said is an error as programs say it.
func said(err error) error {
	code := codes.Internal
	switch fault.KindOf(err) {
	case fault.Conflict:
		code = codes.FailedPrecondition
	case fault.Invalid:
		code = codes.InvalidArgument
	}
	if err == nil {
		return nil
	}
	st, _ := status.New(code, err.Error()).WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "etag", Description: err.Error()}},
	})
	return st.Err()
}

func (s *shelf) Set(ctx context.Context, r *components.SetRequest) (*components.SetResponse, error) {
	return &components.SetResponse{}, said(s.kept.Apply(ctx, []state.Change{s.set(r)}))
}

func (s *shelf) Delete(ctx context.Context, r *components.DeleteRequest) (*components.DeleteResponse, error) {
	return &components.DeleteResponse{}, said(s.kept.Apply(ctx, []state.Change{toDelete(r)}))
}

func (s *shelf) Transact(ctx context.Context, r *components.TransactionalStateRequest) (*components.TransactionalStateResponse, error) {
	var changes []state.Change
	for _, op := range r.GetOperations() {
		if set := op.GetSet(); set != nil {
			changes = append(changes, s.set(set))
		} else {
			changes = append(changes, toDelete(op.GetDelete()))
		}
	}
	return &components.TransactionalStateResponse{}, said(s.kept.(state.Transactor).Transact(ctx, changes))
}

func TestConformState(t *testing.T) { // not parallel: the suite counts goroutines
	dir := folder(t)
	start(t, socket(dir, "shelf"), newShelf(t, "ETAG", "TRANSACTIONAL", "TTL"))
	conform.State(t, find(t, dir, "state.shelf"), conform.StateSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"anything": "the program understands"} },
		Wrong:   map[string]map[string]string{"keyPrefix": {"keyPrefix": "a||b"}},
	})
}

func openShelf(t *testing.T, dir string, items ...config.Item) *state.Store {
	t.Helper()
	env := component.Env{AppID: "shop", Name: "shelf"}
	s, err := state.New(find(t, dir, "state.shelf"), env, config.Component{Name: "shelf", Type: "state.shelf", Metadata: items})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Instance().Close(context.WithoutCancel(t.Context())) })
	return s
}

// A program without bulk reads, transactions, versions and time to live, which
// dies and comes back.
func TestStateOfASimpleProgram(t *testing.T) {
	t.Parallel()
	dir, keeper := folder(t), newShelf(t)
	keeper.noBulk = true
	p := start(t, socket(dir, "shelf"), keeper)
	s := openShelf(t, dir, config.Item{Name: "colour", Value: "red"})
	if words := s.Capabilities(); len(words) > 0 {
		t.Errorf("it can %v", words)
	}
	save := state.Change{Key: "a", Value: []byte("1"), TTL: 1500 * time.Millisecond, Metadata: map[string]string{"TTLinseconds": "9", "x": "y"}}
	if err := s.Apply(t.Context(), []state.Change{save, {Key: "b", Value: []byte{0}, Binary: true}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Transact(t.Context(), []state.Change{save}, ""); err == nil {
		t.Error("it has transactions")
	}
	items, err := s.GetMany(t.Context(), []string{"b", "a", "c", "a"}, state.Read{})
	if err != nil || string(items[0].Value) != "\x00" || string(items[1].Value) != "1" || items[2].Found || !items[3].Found {
		t.Errorf("%+v, %v", items, err)
	}
	if err := s.Apply(t.Context(), []state.Change{save}); err != nil {
		t.Fatal(err)
	}
	if m := keeper.last.GetMetadata(); m["ttlInSeconds"] != "2" || m["x"] != "y" || len(m) != 2 || keeper.last.GetContentType() != "application/json" {
		t.Errorf("the program was told %v", keeper.last)
	}
	p.kill()
	if _, err := s.Get(t.Context(), "a", state.Read{}); !fault.Retriable(err) {
		t.Errorf("without its program: %v", err)
	}
	p.again(t)
	if it, err := s.Get(t.Context(), "b", state.Read{}); err != nil || !it.Found {
		t.Errorf("after its program is back: %+v, %v", it, err)
	}
	if len(keeper.inits) != 2 || keeper.inits[1]["colour"] != "red" {
		t.Errorf("Init was called with %v", keeper.inits)
	}
}

// What a program says of its own: the most changes, an item that is broken.
func TestStateOfAProgramWithBounds(t *testing.T) {
	t.Parallel()
	dir, keeper := folder(t), newShelf(t, "ETAG", "TRANSACTIONAL")
	keeper.most = 2
	start(t, socket(dir, "shelf"), keeper)
	s := openShelf(t, dir)
	changes := []state.Change{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "c", Value: []byte("3")}}
	if err := s.Transact(t.Context(), changes[:2], ""); err != nil {
		t.Error(err)
	}
	if err := s.Transact(t.Context(), changes, ""); fault.KindOf(err) != fault.Invalid {
		t.Errorf("three changes: %v", err)
	}
	items, err := s.GetMany(t.Context(), []string{"a", "broken"}, state.Read{})
	if err != nil || !items[0].Found || items[1].Err == nil || strings.Contains(items[1].Err.Error(), "\n") {
		t.Errorf("%+v, %v", items, err)
	}
	other := "other"
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1"), ETag: &other}}); err == nil || fault.Retriable(err) {
		t.Errorf("another ETag: %v", err)
	}
}

func TestASocketWithoutAStateStore(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	start(t, socket(dir, "shelf"), newPlug())
	_, err := find(t, dir, "state.shelf").Open(t.Context(), component.Env{Name: "shelf"}, nil)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "StateStore") {
		t.Errorf("got %v", err)
	}
}
