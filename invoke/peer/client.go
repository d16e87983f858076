package peer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
)

// ClientOptions are the settings of a [Client]. The zero value is usable.
type ClientOptions struct {
	// MaxBody bounds one message of an answer, and the whole body of a call that
	// is one message, in bytes; default 4 MiB.
	MaxBody int64
	// Identity turns mutual TLS on: it is shown, and whoever answers must prove to be
	// the app that is called. Nil: plain text.
	Identity identity.Source
	// Idle is how long a connection without calls is kept; default 5 minutes.
	Idle   time.Duration
	Logger *slog.Logger
}

// Client calls other sidecars, over one connection to each address; with mutual
// TLS, to each app at an address. It is safe for concurrent use.
type Client struct {
	o     ClientOptions
	codec grpc.CallOption

	mu    sync.Mutex // guards what follows
	conns map[peerApp]*conn
	sweep *time.Timer
	down  bool
}

// peerApp is an app at an address. Without mutual TLS the app does not count.
type peerApp struct {
	address string
	app     identity.ID
}

// conn is the connection to one of them.
type conn struct {
	*grpc.ClientConn
	at    peerApp
	calls int // under way
	since time.Time
	// old tells that the other side knows only calls of one message.
	old bool
	// direct is the way of direct calls; nil where the other side did not say that
	// there is one.
	direct atomic.Pointer[way]
}

// close closes the connection, the direct way too.
func (k *conn) close() {
	if w := k.direct.Load(); w != nil {
		w.close()
	}
	_ = k.Close() // it fails only when it is closed already
}

// NewClient makes a client; it opens no connection.
func NewClient(o ClientOptions) *Client {
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	if o.Idle <= 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{o: o, codec: grpc.ForceCodecV2(newCodec()), conns: map[peerApp]*conn{}}
}

// Close closes every connection; calls under way fail.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = true
	if c.sweep != nil {
		c.sweep.Stop()
	}
	for at, k := range c.conns {
		k.close()
		delete(c.conns, at)
	}
}

// minConnect is what a connection gets to open.
const minConnect = 5 * time.Second

// credentials are what turns mutual TLS on; nil: it is off.
func (c *Client) credentials(app identity.ID) credentials.TransportCredentials {
	if c.o.Identity == nil {
		return nil
	}
	return identity.ClientCredentials(c.o.Identity, app)
}

func (c *Client) dialOptions(creds credentials.TransportCredentials) []grpc.DialOption {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithUserAgent("penstock"), grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(MaxHead), grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: minConnect,
		}),
		// Stock sidecars hang up on clients that ping more than every eight seconds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(int(c.o.MaxBody)+slack), grpc.MaxCallSendMsgSize(int(c.o.MaxBody)+slack)),
	}
}

// take returns the connection to an app at an address; give must follow.
func (c *Client) take(address string, app names.App) (*conn, error) {
	at := peerApp{address: address}
	if c.o.Identity != nil {
		at.app = identity.ID{Namespace: cmp.Or(app.Namespace, identity.DefaultNamespace), App: app.ID}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, fault.New(fault.Unavailable, "connect to %s: shutting down", address)
	}
	k, ok := c.conns[at]
	if !ok {
		cc, err := grpc.NewClient("passthrough:///"+address, c.dialOptions(c.credentials(at.app))...)
		if err != nil {
			return nil, fault.New(fault.Invalid, "connect to %s: %w", address, err)
		}
		k = &conn{ClientConn: cc, at: at}
		c.conns[at] = k
	}
	k.calls++
	return k, nil
}

func (c *Client) give(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.calls--
	k.since = time.Now()
	if c.sweep == nil && !c.down {
		c.sweep = time.AfterFunc(c.o.Idle, c.closeIdle)
	}
}

// closeIdle closes connections that nobody used for long, and comes back as long
// as there are others.
func (c *Client) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep = nil
	for at, k := range c.conns {
		if k.calls == 0 && time.Since(k.since) >= c.o.Idle {
			k.close()
			delete(c.conns, at)
		}
	}
	if len(c.conns) > 0 && !c.down {
		c.sweep = time.AfterFunc(c.o.Idle, c.closeIdle)
	}
}

// statusError is a gRPC status of the other sidecar, or of the way to it.
type statusError struct{ *status.Status }

func (e statusError) Error() string {
	return "sidecar answered " + e.Code().String() + ": " + strings.ToValidUTF8(e.Message(), "\uFFFD") + advice(e.Message())
}

// GRPCCode implements what policies look for.
func (e statusError) GRPCCode() uint32 { return uint32(e.Code()) }

// failed makes the error of a call. The end of ctx is told by its cause.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), "wait for the answer")
	}
	s := status.Convert(err)
	return fault.As(fault.FromGRPCCode(uint32(s.Code())), statusError{s})
}

// Call implements invoke.Peers. It closes r's body.
func (c *Client) Call(ctx context.Context, address string, app names.App, r *message.Request) (*message.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	k, err := c.take(address, app)
	if err != nil {
		return nil, errors.Join(err, r.Body.Close())
	}
	answer, err := c.send(ctx, k, app.ID, r)
	if err != nil {
		if e, ok := errors.AsType[statusError](err); ok && e.Code() == codes.Unavailable {
			k.ResetConnectBackoff()
		}
		c.give(k)
		return nil, err
	}
	answer.OnClose(func() { c.give(k) })
	return answer, nil
}

// send makes a call the best way that the other side knows.
func (c *Client) send(ctx context.Context, k *conn, id string, r *message.Request) (*message.Response, error) {
	if r.Upgrade != "" { // no message can carry it, so it is tried without being asked for
		c.tryDirect(k)
	}
	if w := k.direct.Load(); w != nil && !r.RPC && r.Verb != http.MethodConnect && !w.lost.Load() {
		if answer, err := w.call(ctx, r); !errors.Is(err, errLost) {
			return answer, err
		}
	}
	if r.Upgrade != "" {
		return nil, errors.Join(message.ErrNoUpgrade, r.Body.Close())
	}
	c.mu.Lock()
	old := k.old
	c.mu.Unlock()
	if old {
		return c.unary(ctx, k, id, r)
	}
	return c.stream(ctx, k, id, r)
}

// maybeDirect hears from the end of a call whether the other side takes direct ones.
func (c *Client) maybeDirect(k *conn, md metadata.MD) {
	if len(md[directKey]) > 0 {
		c.tryDirect(k)
	}
}

// tryDirect makes the next call a direct one.
func (c *Client) tryDirect(k *conn) {
	w := k.direct.Load()
	if w != nil && !w.lost.Load() {
		return
	}
	if k.direct.CompareAndSwap(w, newWay(k.at.address, c.credentials(k.at.app))) && w != nil {
		w.close()
	}
}

// stream makes a call whose bodies are streams.
func (c *Client) stream(ctx context.Context, k *conn, id string, r *message.Request) (*message.Response, error) {
	head, md := encode(id, r)
	outer := ctx
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	s, err := internalv1.NewServiceInvocationClient(k).CallLocalStream(ctx, c.codec)
	if err != nil {
		cancel()
		_ = r.Body.Close() // nothing was sent
		return nil, message.Unsent(failed(outer, err))
	}
	up := &upload{s: s, body: r.Body, length: r.Length, cancel: cancel, done: make(chan struct{})}
	go up.run(head)
	first, err := s.Recv()
	switch {
	case status.Code(err) == codes.Unimplemented:
		cancel()
		return c.fallBack(outer, k, id, r, up)
	case err != nil:
		cancel()
		if broken := up.broken(); broken != nil && outer.Err() == nil {
			return nil, broken
		}
		return nil, failed(outer, err)
	}
	answer, err := decodeResponse(first.GetResponse())
	if err != nil {
		cancel()
		return nil, err
	}
	answer.Body = &download{
		s: s, ctx: outer, cancel: cancel, left: first.GetPayload(), answer: answer, end: func(md metadata.MD) { c.maybeDirect(k, md) },
	}
	return answer, nil
}

// fallBack calls a sidecar that is too old for streams, when all of the body was
// in the first message.
func (c *Client) fallBack(ctx context.Context, k *conn, id string, r *message.Request, up *upload) (*message.Response, error) {
	<-up.done
	if !up.whole {
		return nil, fault.New(fault.Invalid, "call app %s: its sidecar is too old for a streamed body, and a body of more than %d bytes is one; upgrade that sidecar", id, chunk)
	}
	c.o.Logger.Warn("Sidecar is too old for streams; calling it with whole messages", "app", id, "address", k.Target())
	c.mu.Lock()
	k.old = true
	c.mu.Unlock()
	again := *r
	again.Body = io.NopCloser(bytes.NewReader(up.first))
	return c.unary(ctx, k, id, &again)
}

// unary makes a call of one message.
func (c *Client) unary(ctx context.Context, k *conn, id string, r *message.Request) (*message.Response, error) {
	data, err := message.ReadAll(r.Body, c.o.MaxBody)
	if err != nil {
		return nil, err
	}
	in, md := encode(id, r)
	in.Message.Data = &anypb.Any{TypeUrl: r.TypeURL, Value: data}
	out, err := internalv1.NewServiceInvocationClient(k).CallLocal(metadata.NewOutgoingContext(ctx, md), in)
	if err != nil {
		return nil, failed(ctx, err)
	}
	answer, err := decodeResponse(out)
	if err != nil {
		return nil, err
	}
	body := out.GetMessage().GetData().GetValue()
	answer.Body, answer.Length = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return answer, nil
}

// upload sends a request and its body. It ends with the body, or with the context
// of the stream as soon as it is not reading.
type upload struct {
	s      internalv1.ServiceInvocation_CallLocalStreamClient
	body   io.ReadCloser
	length int64
	cancel context.CancelFunc
	done   chan struct{}

	// Known when done is closed.
	first []byte // what was in the first message
	whole bool   // that was all
	err   error  // the body broke
}

func (u *upload) run(head *internalv1.InternalInvokeRequest) {
	defer func() {
		if u.err != nil {
			u.cancel()
		}
	}()
	defer close(u.done)
	defer u.body.Close()
	size := int64(chunk)
	if u.length >= 0 {
		size = min(size, u.length)
	}
	buf := make([]byte, size)
	out := &internalv1.InternalInvokeRequestStream{Request: head}
	n, err := 0, error(nil)
	switch {
	case u.length == 0:
		err = io.EOF
	case u.length > 0 && u.length <= chunk:
		if n, err = io.ReadFull(u.body, buf[:u.length]); err == nil {
			err = io.EOF
		}
	case u.length > 0:
		n, err = u.body.Read(buf)
	}
	u.first, u.whole = buf[:n], err == io.EOF // nothing is read into buf again then
	for seq := uint64(0); ; {
		if n > 0 {
			out.Payload = &commonv1.StreamPayload{Data: buf[:n], Seq: seq}
			seq++
		}
		if (n > 0 || out.Request != nil) && !u.failed(err) && u.s.Send(out) != nil {
			return // Recv says why
		}
		if err != nil {
			break
		}
		out.Reset()
		n, err = u.body.Read(buf)
	}
	if u.failed(err) {
		u.err = err
		return
	}
	_ = u.s.CloseSend() // it never fails
}

func (u *upload) failed(err error) bool { return err != nil && err != io.EOF }

// broken returns what was wrong with the body, when that is known by now.
func (u *upload) broken() error {
	select {
	case <-u.done:
		return fault.Wrap(u.err, "read request body")
	default:
		return nil
	}
}

// download is the body of an answer.
type download struct {
	s      internalv1.ServiceInvocation_CallLocalStreamClient
	ctx    context.Context // of the caller
	cancel context.CancelFunc
	left   *commonv1.StreamPayload // nil: nothing
	seq    uint64
	answer *message.Response
	end    func(metadata.MD) // hears the trailer
	err    error
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	for d.err == nil && len(d.left.GetData()) == 0 {
		d.err = d.next()
	}
	if len(d.left.GetData()) > 0 {
		n := copy(p, d.left.Data)
		d.left.Data = d.left.Data[n:]
		return n, nil
	}
	return 0, d.err
}

// next takes the next piece.
func (d *download) next() error {
	if d.left != nil {
		d.left = nil
		d.seq++
	}
	m, err := d.s.Recv()
	switch {
	case errors.Is(err, io.EOF):
		d.end(d.s.Trailer())
		d.trailer()
		return io.EOF
	case err != nil:
		return failed(d.ctx, err)
	case m.GetResponse() != nil && (m.Response.Status != nil || m.Response.Headers != nil || m.Response.Message != nil):
		return fault.New(fault.Unavailable, "read answer: it begins twice")
	}
	if d.left = m.GetPayload(); d.left != nil && d.left.Seq != d.seq {
		d.left = nil
		return fault.New(fault.Unavailable, "read answer: piece %d came, %d is next", m.Payload.Seq, d.seq)
	}
	return nil
}

// trailer reads the trailers of an app that speaks HTTP.
func (d *download) trailer() {
	for key, values := range d.s.Trailer() {
		if name, ok := strings.CutPrefix(key, trailerPrefix); ok && message.Good(name, values) {
			message.AddMetadata(d.answer.Trailer, name, values)
		}
	}
}

// Close implements [io.Closer].
func (d *download) Close() error {
	d.cancel()
	return nil
}
