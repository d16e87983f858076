package outcome

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// calls counts what reached the app, and says what it answers: the first time
// what the row says, then success.
type calls struct {
	mu    sync.Mutex
	count map[string]int
	rows  []row
}

func newCalls(rows []row) *calls { return &calls{count: map[string]int{}, rows: rows} }

// next is the answer to a call whose path, or topic, ends in the row's number.
func (c *calls) next(path string) said {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[path]++
	n, err := strconv.Atoi(path[strings.LastIndexAny(path, "/-")+1:])
	if err != nil || c.count[path] > 1 {
		return said{}
	}
	return c.rows[n].said
}

func (c *calls) of(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[path]
}

// httpApp serves the rows over HTTP and returns its port.
func httpApp(t *testing.T, c *calls, bulk bool) int {
	t.Helper()
	l := listen(t)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s := c.next(r.URL.Path)
		if bulk {
			s.body = bulkBody(s, c.of(r.URL.Path), body)
		}
		w.WriteHeader(max(s.status, http.StatusOK))
		io.WriteString(w, s.body)
	})}
	serve(t, func() { s.Serve(l) }, func() { s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// bulkBody puts the id of the one entry in; from the second call on it says
// success.
func bulkBody(s said, n int, body []byte) string {
	var b struct {
		Entries []struct {
			ID string `json:"entryId"`
		} `json:"entries"`
	}
	if json.Unmarshal(body, &b) != nil || len(b.Entries) != 1 {
		return fmt.Sprintf("not one entry: %s", body)
	}
	if n > 1 {
		s.body = `{"statuses":[{"entryId":"ID","status":"SUCCESS"}]}`
	}
	return strings.ReplaceAll(s.body, "ID", b.Entries[0].ID)
}

// grpcApp serves the rows over gRPC.
type grpcApp struct {
	rtv1.UnimplementedAppCallbackServer
	calls *calls
}

func startGRPCApp(t *testing.T, c *calls) int {
	t.Helper()
	l := listen(t)
	s := grpc.NewServer()
	rtv1.RegisterAppCallbackServer(s, &grpcApp{calls: c})
	serve(t, func() { s.Serve(l) }, s.Stop)
	return l.Addr().(*net.TCPAddr).Port
}

// ListTopicSubscriptions implements AppCallback: all of them are declared.
func (*grpcApp) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*rtv1.ListTopicSubscriptionsResponse, error) {
	return &rtv1.ListTopicSubscriptionsResponse{}, nil
}

// OnTopicEvent implements AppCallback.
func (a *grpcApp) OnTopicEvent(_ context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	s := a.calls.next(r.GetPath())
	if s.code != codes.OK {
		return nil, status.Error(s.code, "as the row says")
	}
	return &rtv1.TopicEventResponse{Status: rtv1.TopicEventResponse_TopicEventResponseStatus(s.word)}, nil
}

// OnBulkTopicEvent implements AppCallback.
func (a *grpcApp) OnBulkTopicEvent(_ context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	s := a.calls.next(r.GetPath())
	if s.code != codes.OK {
		return nil, status.Error(s.code, "as the row says")
	}
	out := &rtv1.TopicEventBulkResponse{}
	for _, e := range r.GetEntries() {
		if !s.none {
			out.Statuses = append(out.Statuses, &rtv1.TopicEventBulkResponseEntry{
				EntryId: e.GetEntryId(), Status: rtv1.TopicEventResponse_TopicEventResponseStatus(s.word),
			})
		}
	}
	return out, nil
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a server until the test ends.
func serve(t *testing.T, run, stop func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); run() }()
	t.Cleanup(func() { stop(); <-done })
}
