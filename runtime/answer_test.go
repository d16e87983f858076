package runtime_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// asking is an input that brings one event and writes what it was answered to a
// file.
var asking = bindings.Define("asking", component.About{Capabilities: []string{bindings.InputCapability}},
	func(_ context.Context, _ component.Env, q question) (bindings.Driver, error) { return q, nil })

type question struct {
	File string `meta:"file,required" doc:"Where the answer goes."`
}

// Read implements bindings.Reader.
func (q question) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	e, err := bindings.Received{ID: "1", Source: "s", Type: "t", Data: []byte("ping")}.Event()
	if err != nil {
		return err
	}
	answer := "none"
	d := &cloudevents.Delivery{Event: e, Body: e.Data()}
	d.Answer = func(contentType string, data []byte) { answer = contentType + ":" + string(data) }
	d.Settle = func(o cloudevents.Outcome) { _ = os.WriteFile(q.File, []byte(o.Verdict.String()+" "+answer), 0o600) }
	if err := emit(ctx, d); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Close implements bindings.Driver.
func (question) Close(context.Context) error { return nil }

func asks(file, to string) string {
	return `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: ask}
spec:
  type: bindings.asking
  version: v1
  metadata: [{name: file, value: "` + file + `"}]
---
` + to
}

func TestTheSourceIsToldTheAnswer(t *testing.T) {
	t.Parallel()
	toStore := store + `
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {binding: ask}
  to: [{binding: {name: store, operation: create, metadata: {fileName: x}}}]
---
`
	rows := []struct {
		name, documents string
		answer          http.HandlerFunc
		want            string
	}{
		{"a body", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/x")
			_, _ = w.Write([]byte("pong"))
		}, "ack text/x:pong"},
		{"nothing", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "ack :"},
		{"outputs", store, reply(`{"to":["store"],"metadata":{"fileName":"x"},"data":{"n": 1}}`), `ack :{"n": 1}`},
		{"refused", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, "retry none"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, `[]`)
			a.answer("/ask", r.answer)
			wantAnswer(t, a, r.documents, r.want)
		})
	}
	t.Run("a pipeline to a binding", func(t *testing.T) {
		t.Parallel()
		wantAnswer(t, nil, toStore, `ack :{"fileName":"x"}`)
	})
}

func wantAnswer(t *testing.T, a *app, documents, want string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answer")
	start(t, a, asks(file, documents))
	var got []byte
	eventually(t, "the event is settled", func() bool {
		var err error
		got, err = os.ReadFile(file)
		return err == nil && len(got) > 0
	})
	if string(got) != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
