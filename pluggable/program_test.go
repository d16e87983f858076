package pluggable_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pluggable"
)

// folder makes a folder whose path is short enough for a socket in it.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plug")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// program serves components on a socket and can die and come back.
type program struct {
	path     string
	services []any
	server   *grpc.Server
	done     chan struct{}
}

// start runs a program until the test ends.
func start(t *testing.T, path string, services ...any) *program {
	t.Helper()
	p := &program{path: path, services: services}
	p.again(t)
	t.Cleanup(p.kill)
	return p
}

// again starts the program another time.
func (p *program) again(t *testing.T) {
	t.Helper()
	os.Remove(p.path) // what a killed one left behind
	l, err := net.Listen("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.server, p.done = grpc.NewServer(grpc.MaxRecvMsgSize(64<<20)), make(chan struct{})
	for _, s := range p.services {
		if s, ok := s.(components.PubSubServer); ok {
			components.RegisterPubSubServer(p.server, s)
		}
		if s, ok := s.(components.InputBindingServer); ok {
			components.RegisterInputBindingServer(p.server, s)
		}
		if s, ok := s.(components.OutputBindingServer); ok {
			components.RegisterOutputBindingServer(p.server, s)
		}
		if s, ok := s.(components.SecretStoreServer); ok {
			components.RegisterSecretStoreServer(p.server, s)
		}
		if s, ok := s.(*shelf); ok {
			components.RegisterStateStoreServer(p.server, s)
			if len(s.features) > 0 {
				components.RegisterTransactionalStateStoreServer(p.server, s)
				components.RegisterTransactionalStoreMultiMaxSizeServer(p.server, s)
			}
		}
	}
	reflection.Register(p.server)
	go func() {
		defer close(p.done)
		_ = p.server.Serve(l)
	}()
}

// kill ends the program at once.
func (p *program) kill() {
	p.server.Stop()
	<-p.done
}

// find finds a type in a folder.
func find(t *testing.T, dir, typ string) component.Definition {
	t.Helper()
	def, err := pluggable.New(nil, dir).Find(typ, "v1")
	if err != nil {
		t.Fatal(err)
	}
	return def
}

func socket(dir, name string) string { return filepath.Join(dir, name+".sock") }

// instance is the name of the component that calls.
func instance(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("x-component-instance"); len(v) == 1 {
		return v[0]
	}
	return ""
}

// ids counts.
type ids struct {
	mu sync.Mutex
	n  int
}

func (i *ids) next() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n++
	return strconv.Itoa(i.n)
}
