// Package mdns is the name resolution "nameresolution.mdns": instances on one
// machine or one network find each other by multicast, without any server.
//
// It is used when spec.nameResolution of the Configuration says nothing. It
// speaks as Dapr's component of that name does: an app is the service
// "<app id>.local.", an instance a pointer of it with host, port, address and the
// app's id as its text; so its sidecars and ours find each other.
//
// It promises that an instance is found within a second of being announced, is
// forgotten at once after a clean stop, and within 35 s after it was killed or
// its network went away. Everybody on the network hears which apps there are and
// can claim to be one; mTLS is what keeps such a claim from being believed. No
// socket is opened before somebody is looked for or announced.
package mdns

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("mdns", component.About{
	Summary: "Instances on one machine or one network find each other by multicast, without a server",
	Limits:  "One network, 1,024 apps and 512 instances of each. An instance that was killed is found for up to 35 s more.",
	Scale:   "Every process hears of every other.",
	Dapr:    "IPv4 multicast only. Processes on one machine also find each other through loopback, without a network.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: mdns
`,
}, open)

type options struct{}

// pace is how often things happen.
type pace struct {
	ask    time.Duration // between questions about an app that is in use
	keep   time.Duration // how long an instance counts after it was heard of
	wait   time.Duration // for the first instance to answer
	gather time.Duration // for others, after the first
	again  time.Duration // until the first question is repeated; doubles
}

func usual() pace {
	return pace{ask: 10 * time.Second, keep: 35 * time.Second, wait: time.Second, gather: 20 * time.Millisecond, again: 200 * time.Millisecond}
}

const (
	ttl = 120 // seconds that others may believe an answer
	// calm is the pause between answers: many askers get one.
	calm = 50 * time.Millisecond
)

type resolver struct {
	logger *slog.Logger
	pace   pace

	mu        sync.Mutex // guards what follows
	closed    bool
	socket    *socket
	reading   chan struct{} // closed when the reader has ended
	apps      map[string]*app
	announced map[*announcement]struct{}
}

// app is one that was asked for.
type app struct {
	instances map[string]instance // by name
	asked     time.Time           // when the network was asked last
	used      time.Time           // when Resolve was called last
	heard     chan struct{}       // closed and replaced at each answer
}

type instance struct {
	address string
	until   time.Time
}

// announcement is an instance of this process.
type announcement struct {
	service service
	asked   chan struct{} // gets one when somebody asks
}

func open(_ context.Context, env component.Env, _ options) (names.Driver, error) {
	return newResolver(env.Logger, usual()), nil
}

func newResolver(logger *slog.Logger, p pace) *resolver {
	return &resolver{logger: logger, pace: p, apps: map[string]*app{}, announced: map[*announcement]struct{}{}}
}

// link returns the socket, opening it when it is not.
func (r *resolver) link() (*socket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, fault.New(fault.Unavailable, "use mDNS: it is closed")
	case r.socket != nil:
		return r.socket, nil
	}
	s, err := listen()
	if err != nil {
		return nil, err
	}
	r.socket, r.reading = s, make(chan struct{})
	go r.read(s, r.reading)
	return s, nil
}

// read takes messages until the socket is closed. One that breaks is opened anew
// by whoever needs it next.
func (r *resolver) read(s *socket, done chan struct{}) {
	defer close(done)
	buf := make([]byte, 64<<10)
	for {
		msg, local, err := s.receive(buf)
		if err != nil {
			s.close()
			r.mu.Lock()
			if r.socket == s {
				r.socket = nil
			}
			r.mu.Unlock()
			return
		}
		r.take(msg, local)
	}
}

// take looks whether a message asks for us or tells of somebody.
func (r *resolver) take(msg []byte, local bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a := range r.announced {
		if a.service.asksFor(msg) {
			select {
			case a.asked <- struct{}{}:
			default:
			}
		}
	}
	wanted := func(id string) bool { return r.apps[id] != nil }
	for _, f := range read(msg, wanted, local) {
		r.learn(r.apps[f.app], f)
	}
}

// learn notes an instance. The caller holds mu.
func (r *resolver) learn(a *app, f found) {
	_, known := a.instances[f.instance]
	switch {
	case f.ttl == 0:
		delete(a.instances, f.instance)
	case known || len(a.instances) < names.MaxInstances:
		a.instances[f.instance] = instance{address: f.address, until: time.Now().Add(min(r.pace.keep, time.Duration(f.ttl)*time.Second))}
	}
	close(a.heard)
	a.heard = make(chan struct{})
}

// Resolve implements names.Driver. mDNS knows no namespaces.
func (r *resolver) Resolve(ctx context.Context, who names.App) ([]string, error) {
	ask, err := question(who.ID)
	if err != nil {
		return nil, err
	}
	s, err := r.link()
	if err != nil {
		return nil, err
	}
	list, due, _ := r.known(who.ID)
	if due || len(list) == 0 {
		if err := s.send(ask); err != nil && len(list) == 0 {
			return nil, err
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	return r.await(ctx, s, who.ID, ask)
}

// known returns the instances of an app that count now, whether it is time to
// ask the network, which is noted as done, and what is closed at the next answer.
func (r *resolver) known(id string) (list []string, due bool, heard <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	a := r.apps[id]
	if a == nil {
		r.forget(now)
		a = &app{instances: map[string]instance{}, heard: make(chan struct{})}
		r.apps[id] = a
	}
	a.used = now
	for name, i := range a.instances {
		if now.After(i.until) {
			delete(a.instances, name)
			continue
		}
		list = append(list, i.address)
	}
	if due = now.Sub(a.asked) >= r.pace.ask; due {
		a.asked = now
	}
	return list, due, a.heard
}

// forget drops apps that nobody asked for any more, and when there are too many
// the one that was asked for longest ago. The caller holds mu.
func (r *resolver) forget(now time.Time) {
	var oldest string
	for id, a := range r.apps {
		if now.Sub(a.used) > 2*r.pace.keep {
			delete(r.apps, id)
		} else if oldest == "" || a.used.Before(r.apps[oldest].used) {
			oldest = id
		}
	}
	if len(r.apps) >= names.MaxApps {
		delete(r.apps, oldest)
	}
}

// await waits for the first answers, asking again now and then: a datagram may
// be lost.
func (r *resolver) await(ctx context.Context, s *socket, id string, ask []byte) ([]string, error) {
	end := time.NewTimer(r.pace.wait)
	defer end.Stop()
	pause := r.pace.again
	for {
		list, _, heard := r.known(id)
		if len(list) > 0 {
			select {
			case <-time.After(r.pace.gather):
			case <-ctx.Done():
			}
			list, _, _ = r.known(id)
			return list, nil
		}
		select {
		case <-heard:
		case <-time.After(pause):
			pause *= 2
			if err := s.send(ask); err != nil {
				return nil, err
			}
		case <-end.C:
			return nil, fault.New(fault.NotFound, "no instance answered by mDNS within %v", r.pace.wait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Announce implements names.Announcer.
func (r *resolver) Announce(ctx context.Context, self names.Self) error {
	sv, err := serviceOf(self)
	if err != nil {
		return err
	}
	live, err := sv.answer(ttl)
	if err != nil {
		return err
	}
	gone, err := sv.answer(0)
	if err != nil {
		return err
	}
	s, err := r.link()
	if err != nil {
		return err
	}
	a := &announcement{service: sv, asked: make(chan struct{}, 1)}
	r.mu.Lock()
	r.announced[a] = struct{}{}
	lost := r.reading
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.announced, a)
		r.mu.Unlock()
	}()
	return a.tell(ctx, s, lost, live, gone)
}

// tell says that the service is there, unasked at first and then whenever
// somebody asks, until ctx ends; then that it is gone.
func (a *announcement) tell(ctx context.Context, s *socket, lost <-chan struct{}, live, gone []byte) error {
	unasked := time.NewTimer(0)
	defer unasked.Stop()
	next := time.Second
	for {
		select {
		case <-ctx.Done():
			return s.send(gone)
		case <-lost:
			return fault.New(fault.Unavailable, "announce by mDNS: the socket was lost")
		case <-a.asked:
		case <-unasked.C:
			if next <= 4*time.Second {
				unasked.Reset(next)
				next *= 2
			}
		}
		if err := s.send(live); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(calm):
		}
	}
}

// serviceOf describes this process.
func serviceOf(self names.Self) (service, error) {
	ip, err := netip.ParseAddr(self.Host)
	if err != nil {
		return service{}, fault.New(fault.Invalid, "announce by mDNS: %q is no IP address; DAPR_HOST_IP sets it", self.Host)
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	sv := service{app: self.ID, instance: self.Instance, host: strings.Trim(host, "."), ip: ip.Unmap(), port: self.InternalPort}
	if sv.instance == "" {
		sv.instance = host + ":" + strconv.Itoa(os.Getpid())
	}
	return sv, nil
}

// Close implements names.Driver.
func (r *resolver) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	s, reading := r.socket, r.reading
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	s.close()
	select {
	case <-reading:
	case <-ctx.Done():
	}
	return nil
}
