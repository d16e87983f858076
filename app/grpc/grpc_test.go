package grpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	h := &healthy{}
	c := connect(t, appgrpc.Options{}, h)
	if err := c.Health(t.Context()); err != nil {
		t.Errorf("well: %v", err)
	}
	h.sick.Store(true)
	if err := c.Health(t.Context()); err == nil {
		t.Error("a sick app counts as well")
	}
	if err := connect(t, appgrpc.Options{}).Health(t.Context()); err == nil || !strings.Contains(err.Error(), "--enable-app-health-check") {
		t.Errorf("without the service: %v", err)
	}
}

func TestProbedAppBeginsUnhealthy(t *testing.T) {
	t.Parallel()
	a := app.New(app.Options{
		Channel: connect(t, appgrpc.Options{}, says(0, nil, nil), &healthy{}),
		Health:  app.HealthOptions{Enabled: true},
	})
	if a.Healthy() {
		t.Error("healthy before anybody asked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.RunHealth(ctx) }()
	if err := a.Ready(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	<-ended
}

func TestTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	t.Cleanup(web.Close)
	creds := credentials.NewTLS(&tls.Config{Certificates: web.TLS.Certificates})
	address, _ := start(t, "127.0.0.1:0", []any{says(0, nil, nil)}, grpc.Creds(creds))
	if o := dial(t, address, appgrpc.Options{Protocol: "grpcs"}).Event(t.Context(), orders, delivery(t, 1), time.Minute); o.Verdict != cloudevents.Ack {
		t.Errorf("grpcs: %s: %v", short(o), o.Err)
	}
	if o := dial(t, address, appgrpc.Options{}).Event(t.Context(), orders, delivery(t, 1), time.Minute); short(o) != "retry (unavailable), no try" {
		t.Errorf("grpc to a grpcs app: %s: %v", short(o), o.Err)
	}
}

// TestNotGRPC wants an app of another protocol not to count as reached, so that
// deliveries wait, and the mistake to be said once.
func TestNotGRPC(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	web.Start()
	t.Cleanup(web.Close)
	var log bytes.Buffer
	c := dial(t, strings.TrimPrefix(web.URL, "http://"), appgrpc.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if err := c.Reach(t.Context()); err == nil {
			t.Error("reached an app that speaks no gRPC")
		}
	}
	if n := strings.Count(log.String(), "--app-protocol"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if o := c.Event(t.Context(), orders, delivery(t, 1), time.Minute); short(o) != "retry (unavailable), no try" {
		t.Errorf("outcome = %s: %v", short(o), o.Err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]appgrpc.Options{
		"app port 0: want 1 to 65535":                                  {},
		`app protocol "http": want grpc or grpcs`:                      {Port: 1, Protocol: "http"},
		`app address "http://x": want a host name or IP address alone`: {Port: 1, Address: "http://x"},
		"app API token: it holds characters that no header can carry":  {Port: 1, Token: "a\nb"},
		"app limits: none may be negative":                             {Port: 1, MaxBody: -1},
	} {
		if _, err := appgrpc.New(o); err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}
