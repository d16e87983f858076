package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/penstock-io/penstock/fault"
)

// Transport is what differs from the usual in the HTTP connection.
type Transport struct {
	// Insecure accepts any certificate.
	Insecure bool
}

// Limits of the HTTP client. A long poll of 20 s must fit into the wait for an
// answer.
const (
	connections   = 128
	dialTimeout   = 5 * time.Second
	answerTimeout = 40 * time.Second
	shortTimeout  = 10 * time.Second
	idleTimeout   = 60 * time.Second
	headerLimit   = 64 << 10
)

func client(t Transport) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(tr *http.Transport) {
			tr.MaxIdleConns, tr.MaxIdleConnsPerHost, tr.MaxConnsPerHost = connections, connections, connections
			tr.TLSHandshakeTimeout = dialTimeout
			tr.ResponseHeaderTimeout = answerTimeout
			tr.IdleConnTimeout = idleTimeout
			tr.MaxResponseHeaderBytes = headerLimit
			tr.HTTP2 = &http.HTTP2Config{SendPingTimeout: dialTimeout, PingTimeout: dialTimeout}
			if t.Insecure {
				if tr.TLSClientConfig == nil {
					tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
				}
				tr.TLSClientConfig.InsecureSkipVerify = true // asked for by the option insecureSSL
			}
		})
}

// impatient is a transport that gives up a request whose answer is late. The
// peer of its connection may be gone without a word, and then that of all others
// may be too: those that are idle are closed.
type impatient struct {
	*http.Transport
	short time.Duration // how long a small answer may take
}

// RoundTrip implements http.RoundTripper.
func (t impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	limit := t.patience(r)
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(limit, func() { cancel(errLate) })
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = plainBody{r.Body}
	}
	resp, err := t.Transport.RoundTrip(r)
	if err != nil {
		timer.Stop()
		late := errors.Is(context.Cause(ctx), errLate)
		cancel(nil)
		if late || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			t.CloseIdleConnections()
		}
		if late {
			err = fault.New(fault.Timeout, "no answer within %s", limit)
		}
		return nil, err
	}
	if limit >= answerTimeout { // the body may be an object, however large
		timer.Stop()
	}
	resp.Body = body{resp.Body, func() { timer.Stop(); cancel(nil) }}
	return resp, nil
}

var errLate = errors.New("late")

// patience is how long an answer may take. Those of SQS, SNS, DynamoDB, Kinesis
// and STS are small and come at once, but for a long poll, whose caller knows how
// long that is.
func (t impatient) patience(r *http.Request) time.Duration {
	target := r.Header.Get("X-Amz-Target")
	form := strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if target == "" && !form || strings.HasSuffix(target, ".ReceiveMessage") {
		return answerTimeout
	}
	return t.short
}

// plainBody can only be read and closed. The SDK closes a request's body when the
// answer has begun, and its WriteTo fails from then on. [http.Transport] may look
// just then whether there is more of the body than was promised: it would take
// that failure for a broken connection and cut the answer off, and what was
// published by the request would be published once more.
type plainBody struct{ io.ReadCloser }

// body ends the request's context when it is closed.
type body struct {
	io.ReadCloser
	done func()
}

// Close implements io.Closer.
func (b body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
