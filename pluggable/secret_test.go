package pluggable_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/test/conform"
)

// safe is the secret store of a program. Each instance has the secrets that its
// option "holds" names, with commas between them; their values are their names.
type safe struct {
	components.UnimplementedSecretStoreServer

	mu    sync.Mutex
	holds map[string][]string // of each instance
	inits int
}

func (s *safe) Init(ctx context.Context, r *components.SecretStoreInitRequest) (*components.SecretStoreInitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[instance(ctx)] = strings.Split(r.GetMetadata().GetProperties()["holds"], ",")
	s.inits++
	return &components.SecretStoreInitResponse{}, nil
}

func (s *safe) Get(ctx context.Context, r *components.GetSecretRequest) (*components.GetSecretResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.holds[instance(ctx)] {
		if name == r.GetKey() {
			return &components.GetSecretResponse{Data: map[string]string{name: name + r.GetMetadata()["version_id"]}}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no\nsuch secret %s.", r.GetKey())
}

func (s *safe) BulkGet(ctx context.Context, r *components.BulkGetSecretRequest) (*components.BulkGetSecretResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.holds[instance(ctx)]) == 0 {
		return nil, status.Error(codes.FailedPrecondition, "not told Init")
	}
	all := map[string]*components.SecretResponse{}
	for _, name := range s.holds[instance(ctx)] {
		all[name] = &components.SecretResponse{Secrets: map[string]string{name: name + r.GetMetadata()["version_id"]}}
	}
	return &components.BulkGetSecretResponse{Data: all}, nil
}

func TestConformSecrets(t *testing.T) { // not parallel: the suite counts goroutines
	dir := folder(t)
	start(t, socket(dir, "safe"), &safe{holds: map[string][]string{}})
	conform.Secrets(t, find(t, dir, "secretstores.safe"), conform.SecretsSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"holds": "a,b c/ä"} },
		Wrong:   map[string]map[string]string{"rotationInterval": {"rotationInterval": "soon"}},
		Want:    map[string]map[string]string{"a": {"a": "a"}, "b c/ä": {"b c/ä": "b c/ä"}},
		Missing: "nothing",
	})
}

func openSafe(t *testing.T, dir string, items ...config.Item) *secrets.Store {
	t.Helper()
	s, err := secrets.New(find(t, dir, "secretstores.safe"), component.Env{Name: "safe"}, config.Component{Name: "safe", Type: "secretstores.safe", Metadata: items}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Instance().Close(context.WithoutCancel(t.Context())) })
	return s
}

// The metadata of a request arrives, and a program that comes back is told Init.
func TestSecretsOfAProgramThatRestarts(t *testing.T) {
	t.Parallel()
	dir, keeper := folder(t), &safe{holds: map[string][]string{}}
	p := start(t, socket(dir, "safe"), keeper)
	s := openSafe(t, dir, config.Item{Name: "holds", Value: "a"})
	metadata := map[string]string{"version_id": "2"}
	if got, err := s.Get(t.Context(), "a", metadata); err != nil || got["a"] != "a2" {
		t.Errorf("got %v, %v", got, err)
	}
	all, err := s.Bulk(t.Context(), metadata)
	if diff := cmp.Diff(map[string]map[string]string{"a": {"a": "a2"}}, all); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	p.kill()
	if _, err := s.Get(t.Context(), "a", nil); !fault.Retriable(err) {
		t.Errorf("without its program: %v", err)
	}
	if _, err := s.Bulk(t.Context(), nil); !fault.Retriable(err) {
		t.Errorf("bulk without its program: %v", err)
	}
	keeper.mu.Lock()
	clear(keeper.holds) // a new process knows nothing
	keeper.mu.Unlock()
	p.again(t)
	if got, err := s.Get(t.Context(), "a", nil); err != nil || got["a"] != "a" || keeper.inits != 2 {
		t.Errorf("after its program is back: %v, %v, Init was called %d times", got, err, keeper.inits)
	}
	if _, err := s.Get(t.Context(), "b", nil); fault.KindOf(err) != fault.NotFound || strings.Contains(err.Error(), "\n") {
		t.Errorf("a missing secret: %v", err)
	}
}

func TestASocketWithoutASecretStore(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	start(t, socket(dir, "safe"), newPlug())
	_, err := find(t, dir, "secretstores.safe").Open(t.Context(), component.Env{Name: "safe"}, nil)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "SecretStore") {
		t.Errorf("got %v", err)
	}
}
