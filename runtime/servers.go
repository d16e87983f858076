package runtime

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/api"
	apigrpc "github.com/penstock-io/penstock/api/grpc"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/telemetry"
)

// servers are those of the API. They stop on their own signal, after the
// routes have drained.
type servers struct {
	serve func(ctx context.Context) error
	stop  chan struct{}
	cut   chan struct{} // closed when requests under way get no more time
	done  chan struct{}
}

// listen makes the servers; connections that came before wait in the listen
// queue.
func (r *Runtime) listen() *servers {
	tokens := []string{}
	if r.o.APIToken != "" {
		tokens = append(tokens, r.o.APIToken)
	}
	settings := apihttp.Options{
		Tokens: tokens, MaxBody: r.o.MaxBody, AllowedHosts: r.o.AllowedHosts,
		AllowedOrigins: r.o.AllowedOrigins, Pipeline: r.inbound, Logger: telemetry.Part(r.log, "api"), Metrics: r.metrics, Tracer: r.tracer,
	}
	handler := apihttp.New(r.api, settings)
	s := &servers{stop: make(chan struct{}), cut: make(chan struct{}), done: make(chan struct{})}
	options := apihttp.ServerOptions{ReadBuffer: r.o.ReadBuffer, Drain: r.o.Grace, Cut: s.cut, Logger: telemetry.Part(r.log, "api")}
	calls := apigrpc.Options{
		Tokens: tokens, MaxBody: r.o.MaxBody, ReadBuffer: r.o.ReadBuffer, Drain: r.o.Grace, Cut: s.cut, Logger: telemetry.Part(r.log, "api"), Metrics: r.metrics, Tracer: r.tracer,
	}
	s.serve = func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return apihttp.NewServer(handler, options).Run(ctx, r.o.Listeners...) })
		if len(r.o.Public) > 0 {
			g.Go(func() error {
				return apihttp.NewServer(apihttp.NewPublic(r.api, settings), options).Run(ctx, r.o.Public...)
			})
		}
		if len(r.o.Profile) > 0 {
			g.Go(func() error {
				return apihttp.NewServer(apihttp.NewProfile(settings), options).Run(ctx, r.o.Profile...)
			})
		}
		if len(r.o.Console) > 0 {
			g.Go(func() error { return r.serveConsole(ctx, settings, options) })
		}
		if len(r.o.Scrapes) > 0 {
			g.Go(func() error { return apihttp.NewServer(r.metrics.Handler(), options).Run(ctx, r.o.Scrapes...) })
		}
		if len(r.o.Internal) > 0 {
			g.Go(func() error { return r.servePeers(ctx, s.cut) })
		}
		if len(r.o.GRPC) > 0 {
			g.Go(func() error { return apigrpc.New(r.api, calls).Run(ctx, r.o.GRPC...) })
		}
		return g.Wait()
	}
	return s
}

// run serves until shutdown is called or ctx ends.
func (s *servers) run(ctx context.Context) error {
	defer close(s.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return s.serve(ctx)
}

// lastWords is what requests get to finish when there is no grace left: the one
// that asked for a forced shutdown wants its answer.
const lastWords = 200 * time.Millisecond

// shutdown lets requests under way finish until ctx ends and cuts off the rest.
// It returns when the servers are down.
func (s *servers) shutdown(ctx context.Context) {
	close(s.stop)
	select {
	case <-s.done:
		return
	case <-ctx.Done():
	}
	select {
	case <-s.done:
		return
	case <-time.After(lastWords):
	}
	close(s.cut)
	<-s.done
}

// limitAPI makes the API follow the Configuration.
func (r *Runtime) limitAPI(c config.Configuration) {
	s := api.Surface{
		Allowed: rules(c.API.Allowed), Denied: rules(c.API.Denied),
		Log: api.CallLog{Enabled: c.APILog.Enabled, Obfuscate: c.APILog.ObfuscateURLs, OmitHealth: c.APILog.OmitHealthChecks},
	}
	if r.o.LogAPI != nil {
		s.Log.Enabled = *r.o.LogAPI
	}
	r.api.SetSurface(s)
	r.limitCalls(c.Access)
}

func rules(list []config.APIRule) []api.Rule {
	out := make([]api.Rule, len(list))
	for i, rule := range list {
		out[i] = api.Rule(rule)
	}
	return out
}

var _ api.Runtime = (*Runtime)(nil)

func sortSubscriptions(list []api.SubscriptionInfo) {
	slices.SortFunc(list, func(a, b api.SubscriptionInfo) int {
		return cmp.Or(cmp.Compare(a.PubSub, b.PubSub), cmp.Compare(a.Topic, b.Topic))
	})
}
