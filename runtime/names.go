package runtime

import (
	"cmp"
	"context"
	"net"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/telemetry"
)

// defaultNames is the resolver of a configuration that names none.
const defaultNames = "mdns"

// resolver is the part that finds other apps: one at a time, exchanged by a
// reload.
type resolver struct {
	directory *names.Directory
	current   *openResolver // nil before the start
}

// openResolver is one that runs.
type openResolver struct {
	config   config.NameResolution
	instance *component.Instance[names.Driver]
	stop     context.CancelFunc
	done     chan struct{}
}

// Names is where instances of other apps are found. Nothing is there before the
// start.
func (r *Runtime) Names() *names.Directory { return r.names.directory }

// resolverType is the type of the component that a configuration asks for.
func resolverType(c config.NameResolution) string {
	return names.Kind + "." + cmp.Or(c.Component, defaultNames)
}

// useNames opens the resolver of a configuration, unless it is the one in use,
// and puts it in the place of that. One that cannot be reached opens in the
// background. After an error everything is as before.
func (r *Runtime) useNames(ctx, life context.Context, c config.NameResolution) error {
	old := r.names.current
	if old != nil && config.Equal(old.config, c) {
		return nil
	}
	fresh, err := r.openNames(ctx, life, c)
	if err != nil {
		return err
	}
	r.names.directory.Use(fresh.instance)
	r.names.current = fresh
	if old != nil {
		r.log.Info("Name resolution changed", "from", resolverType(old.config), "to", resolverType(c))
		r.closeResolver(life, old)
	}
	return nil
}

// openNames opens a resolver; nil error also when it cannot be reached yet.
func (r *Runtime) openNames(ctx, life context.Context, c config.NameResolution) (*openResolver, error) {
	def, err := r.o.Components.Find(resolverType(c), c.Version)
	if err != nil && c.Component == "" { // a build without the usual one
		return &openResolver{config: c, stop: func() {}, done: closedDone()}, nil
	}
	if err != nil {
		return nil, err
	}
	env := r.parts.env
	env.Name, env.Logger = def.Type, telemetry.Part(r.log, "names").With("component", def.Type)
	life, stop := context.WithCancel(life)
	o := &openResolver{config: c, instance: component.NewInstance[names.Driver](def, env, c.Metadata, 0), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_ = o.instance.Run(life) // its state tells
	}()
	wait, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	err = o.instance.Wait(wait)
	switch {
	case err == nil:
	case fault.Retriable(err):
		r.log.Warn("Name resolution not reachable yet, trying again in the background", "type", def.Type, "error", err)
	default:
		r.closeResolver(life, o)
		return nil, err
	}
	return o, nil
}

func closedDone() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// closeNames takes this process back from wherever it is announced and closes
// the resolver.
func (r *Runtime) closeNames(ctx context.Context) {
	r.names.directory.Use(nil)
	if r.names.current != nil {
		r.closeResolver(ctx, r.names.current)
	}
}

// closeResolver closes a resolver that nobody uses any more.
func (r *Runtime) closeResolver(ctx context.Context, o *openResolver) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	o.stop()
	if o.instance != nil {
		if err := o.instance.Close(ctx); err != nil {
			r.log.Warn("Name resolution did not close cleanly", "type", resolverType(o.config), "error", err)
		}
	}
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}

// BeFound announces this process, whose internal gRPC server listens on a port,
// until ctx ends, and takes it back then.
func (r *Runtime) BeFound(ctx context.Context, internalPort int) error {
	return r.names.directory.Announce(ctx, names.Self{
		App:          names.App{ID: r.o.AppID, Namespace: r.o.Namespace},
		Host:         r.ownHost(),
		InternalPort: internalPort, HTTPPort: portOf(r.o.Listeners), GRPCPort: portOf(r.o.GRPC), AppPort: r.o.App.Port,
	})
}

// hostAddress is the address that other machines reach this one by: what
// DAPR_HOST_IP says, else that of the way out, else the first there is, else
// loopback.
func hostAddress(env func(string) (string, bool)) string {
	if ip, ok := env("DAPR_HOST_IP"); ok && strings.TrimSpace(ip) != "" {
		return strings.TrimSpace(ip)
	}
	// Nothing is sent: connecting a datagram socket only chooses its address.
	if conn, err := net.Dial("udp4", "203.0.113.1:9"); err == nil {
		defer conn.Close()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsUnspecified() {
			return a.IP.String()
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		addresses = nil
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// portOf is the port of the first listener that has one.
func portOf(list []net.Listener) int {
	for _, l := range list {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return a.Port
		}
	}
	return 0
}

// resolver checks spec.nameResolution.
func (c *checker) resolver(n config.NameResolution) {
	if n.Component == "" {
		return // none, or reported as missing
	}
	def, err := c.list.Find(resolverType(n), n.Version)
	if err != nil {
		c.add(n.Place, "", "name resolution: %v", err)
		return
	}
	for _, p := range def.Check(n.Metadata) {
		if p.Place.Line == 0 {
			p.Place = n.Place
		}
		p.Text = "name resolution: " + p.Text
		c.problems = append(c.problems, p)
	}
}
