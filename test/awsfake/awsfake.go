// Package awsfake is a small Amazon Web Services in this process, for tests that
// need no server: SQS, SNS, S3, DynamoDB, Kinesis, Secrets Manager and Parameter Store as far as
// components use them.
//
// Start one with [Start] and give its URL to a component as endpoint. Failures
// are made with [Server.Fail].
//
// It is honest where components could cheat: messages are hidden for as long as
// asked and counted when received, a group of a FIFO queue is closed while one of
// its messages is out, entries of a batch fail alone, and limits of size and
// characters hold.
package awsfake

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Region and Account are where everything is.
const (
	Region  = "us-east-1"
	Account = "123456789012"
)

// Server is one fake.
type Server struct {
	// URL is the endpoint.
	URL string

	mu     sync.Mutex // guards what follows
	queues map[string]*fakeQueue
	topics map[string]*fakeTopic
	wake   chan struct{} // closed and made anew when a queue has changed
	fail   func(operation string) *Failure
	calls  map[string]int
	delay  time.Duration
	things
}

// Failure is an error that a request ends with.
type Failure struct {
	Status        int
	Code, Message string
	Header        map[string]string
}

func bad(code, format string, args ...any) *Failure {
	return &Failure{Status: http.StatusBadRequest, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Start runs a fake until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{queues: map[string]*fakeQueue{}, topics: map[string]*fakeTopic{}, wake: make(chan struct{}), calls: map[string]int{}, things: newThings()}
	h := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(h.Close)
	s.URL = h.URL
	return s
}

// Options are what a component needs to use the fake.
func (s *Server) Options() map[string]string {
	return map[string]string{"endpoint": s.URL, "region": Region, "accessKey": "key", "secretKey": "secret"}
}

// Fail makes requests fail: fn gets the name of the operation, such as
// ReceiveMessage, and returns nil for those that succeed. Nil ends it.
func (s *Server) Fail(fn func(operation string) *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fn
}

// Calls returns how often an operation was asked for.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// Delay makes every answer take that long, as a network does.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// slow waits for the delay; false when the client has gone.
func (s *Server) slow(ctx context.Context) bool {
	s.mu.Lock()
	d := s.delay
	s.mu.Unlock()
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// changed wakes those that wait for messages; the caller holds mu.
func (s *Server) changed() {
	close(s.wake)
	s.wake = make(chan struct{})
}

// count notes a call and returns how it is to fail.
func (s *Server) count(operation string) *Failure {
	s.mu.Lock()
	s.calls[operation]++
	fail := s.fail
	s.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(operation)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	switch {
	case !s.slow(r.Context()):
	case target != "":
		s.serveJSON(w, r, target)
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		s.serveQuery(w, r)
	default:
		s.serveS3(w, r)
	}
}

func (s *Server) serveJSON(w http.ResponseWriter, r *http.Request, target string) {
	_, operation, _ := strings.Cut(target, ".")
	var in map[string]any
	d := json.NewDecoder(r.Body)
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		writeJSON(w, nil, bad("SerializationException", "%v", err))
		return
	}
	_, _ = r.Body.Read(make([]byte, 1)) // to its end, so that a client that leaves is noticed
	if f := s.count(operation); f != nil {
		writeJSON(w, nil, f)
		return
	}
	var out any
	f := bad("UnknownOperationException", "%s", target)
	switch service, _, _ := strings.Cut(target, "."); {
	case service == "AmazonSQS":
		out, f = s.sqs(r.Context(), operation, in)
	case strings.HasPrefix(service, "DynamoDB"):
		out, f = s.dynamo(operation, in)
	case strings.HasPrefix(service, "Kinesis"):
		out, f = s.kinesis(operation, in)
	case service == "secretsmanager":
		out, f = s.secretsManager(operation, in)
	case service == "AmazonSSM":
		out, f = s.systemsManager(operation, in)
	}
	writeJSON(w, out, f)
}

func writeJSON(w http.ResponseWriter, out any, f *Failure) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("x-amzn-RequestId", rand.Text())
	if f != nil {
		for k, v := range f.Header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(f.Status)
		out = map[string]string{"__type": "com.amazonaws#" + f.Code, "message": f.Message}
	}
	if out == nil {
		out = map[string]any{}
	}
	_ = json.NewEncoder(w).Encode(out) // the client may be gone
}

func (s *Server) serveQuery(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	operation := r.PostForm.Get("Action")
	f := s.count(operation)
	body := ""
	if f == nil {
		body, f = s.sns(operation, r.PostForm)
	}
	w.Header().Set("Content-Type", "text/xml")
	if f != nil {
		for k, v := range f.Header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(f.Status)
		fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>", f.Code, escape(f.Message))
		return
	}
	fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></%[1]sResponse>", operation, body)
}

// textual tells whether SQS and SNS take a text.
func textual(text string) bool {
	for _, r := range text {
		if r == '�' || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return text != ""
}

func str(in map[string]any, name string) string {
	v, _ := in[name].(string)
	return v
}

func num(in map[string]any, name string, otherwise int) int {
	if v, ok := in[name].(json.Number); ok {
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
	}
	return otherwise
}

func list(in map[string]any, name string) []map[string]any {
	all, _ := in[name].([]any)
	out := make([]map[string]any, len(all))
	for i := range all {
		out[i], _ = all[i].(map[string]any)
	}
	return out
}
