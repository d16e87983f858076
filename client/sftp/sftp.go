// Package sftp connects to SFTP servers: one connection per server and user,
// shared by all components of the process that use it.
//
// A component embeds [Options] and calls [Open]; [Do] runs a piece of work on
// the connection for as long as its context lets it.
//
// It promises that a connection that broke is made anew by the next piece of
// work, that one that hangs is found within half a minute and cut, that the
// server's key is checked, and that errors have a kind. Nothing is done twice:
// whose connection breaks gets an error, since only the caller knows whether to
// do it again is safe.
package sftp

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	dialTimeout = 15 * time.Second
	aliveEvery  = 15 * time.Second
)

// Client is a component's use of a connection.
type Client struct {
	link    *link
	release func() error

	mu     sync.Mutex // guards closed, and work against it
	closed bool
	work   sync.WaitGroup
}

// link is the connection to one server as one user.
type link struct {
	address string
	config  *ssh.ClientConfig
	alive   time.Duration  // how often the server is asked, and how long it may take
	work    sync.WaitGroup // of everything that runs on its own

	turn chan struct{} // held by who connects

	mu      sync.Mutex // guards what follows
	session *session   // nil: to be made
	closed  bool
}

// session is one connection, until it breaks.
type session struct {
	conn  net.Conn
	files *sftp.Client
	over  chan struct{} // closed when it is broken
}

// Open makes or joins the connection. Kinds: Unavailable and Timeout when the
// server cannot be reached, Denied when it refuses the user or is another one,
// Invalid for options that cannot be.
func Open(ctx context.Context, env component.Env, o Options) (*Client, error) {
	l, err := o.link()
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	l, release, err := component.Share(shared, "sftp/"+o.identity(), func() (*link, func() error, error) {
		return l, l.close, nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := l.connected(ctx); err != nil {
		_ = release() // the first error says more
		return nil, err
	}
	return &Client{link: l, release: release}, nil
}

func (o Options) link() (*link, error) {
	address, err := o.hostPort()
	if err != nil {
		return nil, err
	}
	methods, err := o.auth()
	if err != nil {
		return nil, err
	}
	check, kinds, err := o.verify(address)
	if err != nil {
		return nil, err
	}
	return &link{
		address: address, turn: make(chan struct{}, 1), alive: aliveEvery,
		config: &ssh.ClientConfig{
			User: o.Username, Auth: methods, HostKeyCallback: check, HostKeyAlgorithms: kinds,
			ClientVersion: "SSH-2.0-Penstock",
		},
	}, nil
}

// Close takes no more work, waits for that under way until ctx ends, and lets go
// of the connection; the last one to do so closes it, which ends what is still
// under way. Calling it twice is allowed.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	if !c.link.spawn(func() { c.work.Wait(); close(done) }) {
		return c.release()
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	return c.release()
}

// begin counts work in, unless it is too late.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Add(1)
	}
	return !c.closed
}

// Address returns host and port, for logs.
func (c *Client) Address() string { return c.link.address }

// Do runs fn on the connection, which it makes when there is none. When ctx ends
// first, Do returns while fn goes on by itself, and nobody learns what came of it.
func Do[T any](ctx context.Context, c *Client, fn func(*sftp.Client) (T, error)) (value T, err error) {
	type result struct {
		value T
		err   error
	}
	s, err := c.link.connected(ctx)
	if err != nil {
		return value, err
	}
	if !c.begin() {
		return value, errClosed()
	}
	done := make(chan result, 1)
	if !c.link.spawn(func() {
		defer c.work.Done()
		v, err := fn(s.files)
		done <- result{v, err}
	}) {
		c.work.Done()
		return value, errClosed()
	}
	select {
	case r := <-done:
		return r.value, classify(r.err, s)
	case <-ctx.Done():
		return value, fault.Wrap(ctx.Err(), "wait for %s", c.link.address)
	}
}

func errClosed() error {
	return fault.New(fault.Unavailable, "use the connection: it is closed")
}

// spawn runs fn on its own; close waits for it. False when it is too late.
func (l *link) spawn(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.work.Go(fn)
	return true
}

// connected returns a connection that is not known to be broken.
func (l *link) connected(ctx context.Context) (*session, error) {
	if s, err := l.live(); s != nil || err != nil {
		return s, err
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, fault.Wrap(ctx.Err(), "connect to %s", l.address)
	}
	if s, err := l.live(); s != nil || err != nil {
		return s, err
	}
	s, err := l.dial(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "connect to %s", l.address)
	}
	if !l.keep(s) {
		_ = s.conn.Close()
		return nil, errClosed()
	}
	return s, nil
}

// live returns the session that there is; nil when one must be made.
func (l *link) live() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed()
	}
	if l.session == nil {
		return nil, nil
	}
	select {
	case <-l.session.over:
		l.session = nil
	default:
	}
	return l.session, nil
}

// keep makes s the session of the link and watches over it.
func (l *link) keep(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.session = s
	return true
}

// dial makes a connection; ctx is for that only.
func (l *link) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, fault.As(dialKind(err), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s, err := l.shake(conn)
	if !stop() { // it has run, or is about to
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = conn.Close() // the first error says more
		if ctx.Err() != nil {
			return nil, fault.Wrap(ctx.Err(), "shake hands")
		}
		return nil, fault.As(shakeKind(err), err)
	}
	return s, nil
}

// shake makes a session of a connection and starts to watch over it.
func (l *link) shake(conn net.Conn) (*session, error) {
	c, channels, requests, err := ssh.NewClientConn(conn, l.address, l.config)
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	files, err := sftp.NewClient(client, sftp.UseConcurrentWrites(true))
	if err != nil {
		_ = client.Close() // the first error says more
		return nil, err
	}
	s := &session{conn: conn, files: files, over: make(chan struct{})}
	started := l.spawn(func() {
		_ = files.Wait() // whatever the reason, it is over
		_ = client.Close()
		_ = client.Wait()
		close(s.over)
	}) && l.spawn(func() { s.watch(client, l.alive) })
	if !started {
		_ = client.Close()
		return nil, errClosed()
	}
	return s, nil
}

// watch asks the server now and then whether it is there, and cuts the
// connection when it does not answer.
func (s *session) watch(client *ssh.Client, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.over:
			return
		case <-tick.C:
		}
		timer := time.AfterFunc(every, func() { _ = s.conn.Close() })
		_, _, _ = client.SendRequest("keepalive@openssh.com", true, nil) // any answer will do
		timer.Stop()
	}
}

// close ends the connection and waits for all that runs on it.
func (l *link) close() error {
	l.mu.Lock()
	l.closed = true
	s := l.session
	l.session = nil
	l.mu.Unlock()
	if s != nil {
		_ = s.conn.Close() // it may be broken
	}
	l.work.Wait()
	return nil
}
