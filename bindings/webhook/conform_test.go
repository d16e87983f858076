package webhook

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/port"
)

// TestConform uses one webhook both ways. With answer outcome the sender owns
// the event until it is answered 2xx and sends it again until then; so nothing
// comes again by itself.
func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body) // all of it before the answer begins
				_, _ = w.Write(body)
			}))
			t.Cleanup(s.Close)
			return map[string]string{
				"path": "/hook", "listen": freeAddress(t), "answer": outcome, "timeout": "1s", "url": s.URL, "contentType": "application/octet-stream",
			}
		},
		Wrong: map[string]map[string]string{
			"path": {"path": "hook"}, "listen": {"listen": "here"}, "answer": {"answer": "later"}, "url": {"url": "ftp://example.com"},
			"methods": {"methods": "GET IT"}, "secret": {"signature": "github"}, "maxConcurrency": {"maxConcurrency": "0"},
		},
		Feed: feedHook, NoRedelivery: true, Forgets: true,
		Requests: func(map[string]string) (all []bindings.Request) {
			for _, operation := range Component.About.Operations {
				all = append(all, bindings.Request{Operation: operation, Data: []byte("x")})
			}
			return all
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "operation", Request: bindings.Request{Operation: "fetch"}, Kind: fault.Invalid},
		},
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", p)
}

// feedHook sends one request a body, one after the other and each again while
// nothing reads, as senders do. It does not wait: the suite may read later.
func feedHook(t *testing.T, options map[string]string, bodies ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon) // ends before the clean-ups
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		defer cancel()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for _, body := range bodies {
			for sendHook(ctx, options, body) != http.StatusOK {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		}
	})
}

// sendHook returns the status of the answer, or 0 when there is none.
func sendHook(ctx context.Context, options map[string]string, body string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+options["listen"]+options["path"], strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
