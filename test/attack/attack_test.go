package attack

import (
	"bufio"
	cmp2 "cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/dapr/dapr/pkg/proto/internals/v1" // so that its methods are known
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// patience is how long an answer may take.
const patience = 20 * time.Second

// answer is what came back.
type answer struct {
	statuses []int
	code     string
	text     string // all of it
}

// TestAttacks runs the rows one after the other against the same instances, so
// that what one of them broke shows in the next.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	w.log.take()
	for file, list := range rows(t) {
		for _, r := range list {
			t.Run(file+"/"+r.Name, func(t *testing.T) { w.check(t, r) })
		}
	}
}

// check runs a row.
func (w *world) check(t *testing.T, r row) {
	if r.To == "" {
		r.To = "callee"
	}
	if r.Call != "" {
		r.To = strings.TrimSuffix(r.To, "-grpc") + "-grpc"
	}
	at := w.at[r.To]
	r.Request = strings.ReplaceAll(r.Request, "{app}", fmt.Sprint(w.app.port))
	var got answer
	switch {
	case at == "":
		t.Fatalf("there is no server %s", r.To)
	case r.Call != "":
		got = call(t, at, r)
		if !slices.Contains(r.Code, got.code) {
			t.Errorf("code %s, want %s: %s", got.code, r.Code, got.text)
		}
	case r.Frames != nil:
		got = frames(t, at, r)
	default:
		got = raw(t, at, r.bytes(t, at))
	}
	if r.Call == "" {
		checkStatus(t, r, got)
	}
	seen := w.app.take(len(r.Saw))
	if diff := cmp.Diff(append([]string{}, r.Saw...), targets(seen)); diff != "" {
		t.Errorf("the app saw (-want +got):\n%s", diff)
	}
	var all strings.Builder
	for _, s := range seen {
		all.WriteString(s.text)
	}
	logged := w.log.take()
	contains(t, "the answer", got.text, r.Has, append(r.Lacks, appToken, pageToken))
	contains(t, "what the app saw", all.String(), r.SawHas, append(r.SawLacks, apiToken, pageToken))
	contains(t, "the log", logged, r.Logged, append(r.Unlogged, apiToken, appToken, pageToken, "panic"))
}

func checkStatus(t *testing.T, r row, got answer) {
	t.Helper()
	first := 0
	if len(got.statuses) > 0 {
		first = got.statuses[0]
	}
	if !slices.Contains(r.Status, first) {
		t.Errorf("status %d, want %d: %.2000s", first, r.Status, got.text)
	}
	if r.Answers > 0 && len(got.statuses) != r.Answers {
		t.Errorf("%d answers, want %d: %d", len(got.statuses), r.Answers, got.statuses)
	}
}

// contains checks which texts are in a text, in any case.
func contains(t *testing.T, what, text string, has, lacks []string) {
	t.Helper()
	text = strings.ToLower(text)
	for _, s := range has {
		if !strings.Contains(text, strings.ToLower(s)) {
			t.Errorf("%s has no %q: %.2000s", what, s, text)
		}
	}
	for _, s := range lacks {
		if strings.Contains(text, strings.ToLower(s)) {
			t.Errorf("%s has %q: %.2000s", what, s, text)
		}
	}
}

// raw sends bytes, a good request that closes the connection behind them, and reads
// all answers.
func raw(t *testing.T, at, request string) answer {
	t.Helper()
	return exchange(t, at, request+"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

// exchange sends bytes and reads all answers.
func exchange(t *testing.T, at, request string) answer {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, request) // a server may hang up before it has read all
	}()
	defer func() { c.Close(); <-sent }()
	got := answer{}
	for r := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(r, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no end after %s", patience)
		}
		if err != nil {
			return got
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		text, err := httputil.DumpResponse(resp, true)
		if err != nil {
			text = append(text, err.Error()...)
		}
		resp.Body.Close()
		got.statuses = append(got.statuses, resp.StatusCode)
		got.text += string(text)
	}
}

// frames sends the headers of a request over HTTP/2 as they are.
func frames(t *testing.T, at string, r row) answer {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, line := range r.Frames {
		line = expand(t, line, at)
		cut := strings.Index(line[1:], ":") + 1
		if err := enc.WriteField(hpack.HeaderField{Name: line[:cut], Value: strings.TrimPrefix(line[cut+1:], " ")}); err != nil {
			t.Fatal(err)
		}
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err = errors.Join(c.SetDeadline(time.Now().Add(patience)), func() error { _, err := io.WriteString(c, http2.ClientPreface); return err }(),
		f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	return readFrames(t, f)
}

// readFrames reads until the stream, or the connection, is over.
func readFrames(t *testing.T, f *http2.Framer) (got answer) {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range frame.Fields {
				got.text += h.Name + ": " + h.Value + "\n"
				var status int
				if _, err := fmt.Sscan(h.Value, &status); h.Name == ":status" && err == nil {
					got.statuses = append(got.statuses, status)
				}
			}
			if frame.StreamEnded() {
				return got
			}
		case *http2.DataFrame:
			got.text += string(frame.Data())
			if frame.StreamEnded() {
				return got
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return got
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no end after %s", patience)
		}
		if err != nil {
			return got
		}
	}
}

// call makes a gRPC call; its message is one of Dapr's API, or empty.
func call(t *testing.T, at string, r row) answer {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in, out := messages(t, r)
	md := metadata.Pairs()
	anonymous := false
	for _, line := range r.Metadata {
		name, value, _ := strings.Cut(expand(t, line, at), ": ")
		md.Append(name, value)
		anonymous = anonymous || name == "dapr-api-token"
	}
	if !anonymous {
		md.Append("dapr-api-token", apiToken)
	}
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), md), patience)
	defer cancel()
	var header, trailer metadata.MD
	options := []grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer)}
	if r.Packed {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	err = conn.Invoke(ctx, r.Call, in, out, options...)
	return answer{code: status.Code(err).String(), text: fmt.Sprint(err, header, trailer, out)}
}

// messages returns those of a method, empty ones when it is no one's.
func messages(t *testing.T, r row) (in, out proto.Message) {
	t.Helper()
	name := strings.ReplaceAll(strings.TrimPrefix(r.Call, "/"), "/", ".")
	found, _ := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return new(rtv1.GetMetadataRequest), new(rtv1.GetMetadataRequest)
	}
	in, out = dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(expand(t, cmp2.Or(r.Message, "{}"), "")), in); err != nil {
		t.Fatal(err)
	}
	return in, out
}
