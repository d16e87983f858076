//go:build services

package trace_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/trace"
	"github.com/penstock-io/penstock/test/services"
)

// TestZipkin has a real server say what it was told.
func TestZipkin(t *testing.T) {
	t.Parallel()
	at := services.Need(t, "zipkin")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), Zipkin: at + "/api/v2/spans"})
	ctx, outer := tr.Start(t.Context(), trace.Begin{Kind: trace.Consumer, Group: "pubsub/", Name: "orders", Root: true})
	_, inner := tr.Call(ctx, "state", "store", "get")
	inner.Done(fault.New(fault.NotFound, "not there"))
	outer.SetInt(trace.Attempt, 1)
	id := outer.Context().Parent[3:35]
	outer.End()
	end(tr, 20*time.Second)
	if n := tr.Counts(); n != (trace.Counts{Sent: 2}) {
		t.Fatalf("%+v", n)
	}
	spans := map[string]zipkinSpan{}
	for limit := time.Now().Add(20 * time.Second); len(spans) < 2 && time.Now().Before(limit); {
		for _, s := range ask(t, at+"/api/v2/trace/"+id) {
			spans[s.Name] = s
		}
	}
	one, two := spans["pubsub/orders"], spans["state/store"]
	if one.TraceID != id || one.Kind != "CONSUMER" || one.ParentID != "" || one.LocalEndpoint.ServiceName != "shop" || one.Tags[trace.Attempt] != "1" || one.Timestamp == 0 {
		t.Errorf("outer %+v", one)
	}
	if two.TraceID != id || two.Kind != "CLIENT" || two.ParentID != one.ID || two.Tags["error"] != "not found" || two.Duration < 1 {
		t.Errorf("inner %+v", two)
	}
}

type zipkinSpan struct {
	TraceID, ParentID, ID, Kind, Name string
	Timestamp, Duration               int64
	LocalEndpoint                     struct{ ServiceName string }
	Tags                              map[string]string
}

func ask(t *testing.T, url string) (spans []zipkinSpan) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&spans); err != nil {
			t.Fatal(err)
		}
	}
	return spans
}
