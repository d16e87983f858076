// Package collector takes spans over the protocols that collectors speak, for tests.
//
// GRPC and HTTP are receivers on the official messages of OpenTelemetry's protocol,
// Zipkin one of Zipkin's JSON, version 2. Spans returns what came so far, in one form.
//
// A request that is not of the protocol is answered with an error, as a real
// collector would, and fails the test.
package collector

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	collectv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Span is one that came. Ids are hexadecimal.
type Span struct {
	Trace, ID, Parent   string
	Name, Kind, Service string // the kind in lower case: server, client, producer, consumer
	Attributes          map[string]string
	Failed              bool
	Links               []string // traces
	Start, End          int64    // in microseconds
}

// Collector keeps what came.
type Collector struct {
	collectv1.UnimplementedTraceServiceServer

	// Address is host and port, URL that with a scheme.
	Address, URL string

	t       *testing.T
	mu      sync.Mutex
	spans   []Span
	headers []http.Header
}

// Spans returns what came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Headers returns those of the requests that came.
func (c *Collector) Headers() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.headers)
}

func (c *Collector) keep(h http.Header, spans []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, h)
	c.spans = append(c.spans, spans...)
}

// GRPC starts a receiver of OTLP over gRPC until the test ends.
func GRPC(t *testing.T) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{t: t, Address: l.Addr().String(), URL: "http://" + l.Addr().String()}
	s := grpc.NewServer()
	collectv1.RegisterTraceServiceServer(s, c)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) }) // it ends with Stop
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return c
}

// Export implements the service.
func (c *Collector) Export(ctx context.Context, r *collectv1.ExportTraceServiceRequest) (*collectv1.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := http.Header{}
	for name, values := range md {
		h[http.CanonicalHeaderKey(name)] = values
	}
	c.keep(h, fromOTLP(r))
	return &collectv1.ExportTraceServiceResponse{}, nil
}

// HTTP starts a receiver of OTLP over HTTP.
func HTTP(t *testing.T) *Collector {
	t.Helper()
	return web(t, "/v1/traces", "application/x-protobuf", func(body []byte) ([]Span, error) {
		var r collectv1.ExportTraceServiceRequest
		err := proto.Unmarshal(body, &r)
		return fromOTLP(&r), err
	})
}

// Zipkin starts a receiver of Zipkin's JSON.
func Zipkin(t *testing.T) *Collector {
	t.Helper()
	return web(t, "/api/v2/spans", "application/json", fromZipkin)
}

func web(t *testing.T, path, kind string, read func([]byte) ([]Span, error)) *Collector {
	t.Helper()
	c := &Collector{t: t}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := bodyOf(r)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != path || r.Header.Get("Content-Type") != kind {
			t.Errorf("%s %s of %s: %v", r.Method, r.URL, r.Header.Get("Content-Type"), err)
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		spans, err := read(body)
		if err != nil {
			t.Errorf("read spans: %v in %.2000s", err, body)
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		c.keep(r.Header, spans)
	}))
	t.Cleanup(s.Close)
	c.Address, c.URL = strings.TrimPrefix(s.URL, "http://"), s.URL
	return c
}

func bodyOf(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func fromOTLP(r *collectv1.ExportTraceServiceRequest) (out []Span) {
	for _, of := range r.GetResourceSpans() {
		service := texts(of.GetResource().GetAttributes())["service.name"]
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				one := Span{
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Name: s.GetName(), Kind: strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")), Service: service,
					Attributes: texts(s.GetAttributes()), Failed: s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR,
					Start: int64(s.GetStartTimeUnixNano() / 1000), End: int64(s.GetEndTimeUnixNano() / 1000),
				}
				for _, l := range s.GetLinks() {
					one.Links = append(one.Links, hex.EncodeToString(l.GetTraceId()))
				}
				out = append(out, one)
			}
		}
	}
	return out
}

func texts(list []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		}
	}
	return out
}

func fromZipkin(body []byte) (out []Span, err error) {
	var list []struct {
		TraceID, ParentID, ID, Kind, Name string
		Timestamp, Duration               int64
		LocalEndpoint                     struct{ ServiceName string }
		Tags                              map[string]string
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	for _, s := range list {
		_, failed := s.Tags["error"]
		out = append(out, Span{
			Trace: s.TraceID, ID: s.ID, Parent: s.ParentID, Name: s.Name, Kind: strings.ToLower(s.Kind), Service: s.LocalEndpoint.ServiceName,
			Attributes: s.Tags, Failed: failed, Start: s.Timestamp, End: s.Timestamp + s.Duration,
		})
	}
	return out, nil
}
