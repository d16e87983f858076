// Package redis connects to Redis servers: one client per server and identity,
// shared by all components that use it.
//
// A component embeds [Options] and calls [Open]; what it gets is a
// rueidis.Client, whose commands of all callers go out together. Client-side
// caching is off, and nothing is sent twice: a command whose answer was lost
// fails, for only its sender knows whether doing it again is safe.
//
// It promises that broken connections are made anew with the next command, that
// an open respects its context, and that every error has a kind once [Classify]
// has seen it.
package redis

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Client is a component's use of a connection. Close lets go of it; the last
// one to do so closes the connection.
type Client struct {
	rueidis.Client
	timeout time.Duration
	release func() error
}

// Blocking bounds a command that waits in the server for a while: nothing else
// does when the connection is dead and nobody has said so.
func (c *Client) Blocking(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, while+c.timeout)
}

// Close lets go of the connection.
func (c *Client) Close() error { return c.release() }

// Script is a Lua script that is sent by its digest once the server knows it.
type Script struct{ *rueidis.Lua }

// NewScript makes a script. It may be used by any number of goroutines.
func NewScript(text string) Script { return Script{rueidis.NewLuaScript(text)} }

// Bytes is a value that the server sent, without a copy: nobody may change it.
func Bytes(value string) []byte {
	if value == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(value), len(value))
}

// Buffers of a connection: enough for a batch of small events.
const bufferSize = 128 << 10

// Open connects. Kinds: Unavailable when there is nobody, Denied for a wrong
// password, Invalid for options that cannot be.
func Open(ctx context.Context, env component.Env, o Options) (*Client, error) {
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	co, err := o.client()
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	c, release, err := component.Share(shared, "redis/"+o.identity(), func() (rueidis.Client, func() error, error) {
		c, err := connect(ctx, co)
		if err != nil {
			return nil, nil, fault.Wrap(Classify(err), "connect to %s", o.RedisHost)
		}
		return c, func() error { c.Close(); return nil }, nil
	})
	if err != nil {
		return nil, err
	}
	return &Client{Client: c, timeout: co.ConnWriteTimeout, release: release}, nil
}

// connect is NewClient for somebody who does not wait for ever: the library has
// no context for it. Who gave up has the late client closed.
func connect(ctx context.Context, o rueidis.ClientOption) (rueidis.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		c   rueidis.Client
		err error
	}
	opening, cancel := context.WithCancel(ctx)
	open := make(chan struct{})
	o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		select {
		case <-open:
		default:
			var stop context.CancelFunc
			ctx, stop = context.WithCancel(ctx)
			defer stop()
			defer context.AfterFunc(opening, stop)()
		}
		if t != nil {
			return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	done := make(chan result, 1)
	go func() {
		c, err := rueidis.NewClient(o)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		close(open)
		cancel()
		return r.c, r.err
	case <-ctx.Done():
		cancel()
		go func() {
			if r := <-done; r.err == nil {
				r.c.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (o Options) client() (rueidis.ClientOption, error) {
	addresses, err := o.addresses()
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	t, err := o.tls()
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	dialer := net.Dialer{Timeout: positive(o.DialTimeout, 5*time.Second), KeepAlive: time.Second}
	co := rueidis.ClientOption{
		InitAddress: addresses, Username: o.RedisUsername, Password: o.RedisPassword.Reveal(), SelectDB: o.RedisDB,
		TLSConfig: t, Dialer: dialer, ConnWriteTimeout: positive(o.ReadTimeout, 10*time.Second),
		ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize, PipelineMultiplex: -1,
		DisableCache: true, DisableRetry: true, ForceSingleClient: o.RedisType != "cluster",
		BlockingPoolCleanup: time.Minute, ClientName: "penstock", ClientSetInfo: rueidis.DisableClientSetInfo,
	}
	if o.Failover {
		co.ForceSingleClient = false
		co.Sentinel = rueidis.SentinelOption{
			MasterSet: o.SentinelMasterName, Username: o.SentinelUsername, Password: o.SentinelPassword.Reveal(),
			Dialer: dialer, TLSConfig: t, TopologyRefreshInterval: 2 * time.Second,
		}
	}
	return co, nil
}

// identity tells connections apart without showing a secret.
func (o Options) identity() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %q %q %d %q %t %q %q %q", o.RedisHost, o.RedisPort, o.RedisUsername, o.RedisPassword.Reveal(),
		o.RedisDB, o.RedisType, o.Failover, o.SentinelMasterName, o.SentinelUsername, o.SentinelPassword.Reveal())
	fmt.Fprintf(h, "%t %t %q %q %q %q %q", o.EnableTLS, o.InsecureSkipTLSVerify, o.CACert, o.ClientCert, o.ClientKey.Reveal(), o.DialTimeout, o.ReadTimeout)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// kinds of what a server says, by the first word of it.
func kindOf(text string) fault.Kind {
	word, _, _ := strings.Cut(text, " ")
	switch word {
	case "OOM":
		return fault.Exhausted
	case "LOADING", "READONLY", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "UNBLOCKED", "MOVED", "ASK":
		return fault.Unavailable
	case "NOAUTH", "WRONGPASS", "NOPERM", "DENIED":
		return fault.Denied
	case "NOGROUP":
		return fault.NotFound
	case "WRONGTYPE":
		return fault.Invalid
	}
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "max number of clients"):
		return fault.Unavailable
	case strings.Contains(lower, "password"):
		return fault.Denied
	}
	return fault.Invalid // the server understood us and does not want it
}

// Classify gives an error of a command its kind: Exhausted when the server's
// memory is full, Unavailable when it cannot be reached, loads, is a replica or
// cannot write to its disk, Denied for a wrong password or missing right,
// NotFound for a missing group, Invalid for a key of another type and whatever
// else the server refuses. Nil stays nil.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := rueidis.IsRedisErr(err); ok {
		text := e.Error()
		if strings.HasPrefix(text, "WRONGTYPE") {
			return fault.New(fault.Invalid, "the key holds another kind of value: %w", err)
		}
		return fault.As(kindOf(text), err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.As(fault.KindOf(err), err)
	}
	return fault.As(fault.Unavailable, err)
}
