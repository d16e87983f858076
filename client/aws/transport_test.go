package aws

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// closedBody is a request's body as the SDK leaves it when the answer has begun:
// what is read is there, and WriteTo fails.
type closedBody struct{ *strings.Reader }

func (closedBody) WriteTo(io.Writer) (int64, error) { return 0, io.EOF }
func (closedBody) Close() error                     { return nil }

// TestAnswerIsNotCutByTheRequest: when an answer comes while the SDK's body is
// closed, its connection stays. It was cut, and the SDK sent the batch again.
func TestAnswerIsNotCutByTheRequest(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what came is not looked at
		w.Header().Set("Content-Length", "4")
		w.(http.Flusher).Flush()
		select {
		case <-begun:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "done") // the client tells when it failed
	}))
	defer s.Close()
	transport := impatient{&http.Transport{}, time.Minute}
	defer transport.CloseIdleConnections()
	const size = 64 << 10
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, closedBody{strings.NewReader(strings.Repeat("x", size))})
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = size
	r.Header.Set("X-Amz-Target", "AmazonSQS.SendMessageBatch")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(begun)
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "done" {
		t.Errorf("got %q, %v", text, err)
	}
}
