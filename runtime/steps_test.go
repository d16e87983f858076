package runtime_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	statememory "github.com/penstock-io/penstock/state/inmemory"
)

// example is the document that stands in a page below a heading.
func example(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n### "+heading+"\n")
	_, document, begun := strings.Cut(below, "```yaml\n")
	document, _, ended := strings.Cut(document, "```\n")
	if !found || !begun || !ended {
		t.Fatalf("%s has no document below %q", page, heading)
	}
	return document
}

// TestExampleOfStateAndSecretsInSteps plays the pipeline of docs/concepts.md.
func TestExampleOfStateAndSecretsInSteps(t *testing.T) {
	t.Parallel()
	type request struct{ authorization, body string }
	calls := make(chan request, 10)
	crm := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- request{r.Header.Get("Authorization"), string(body)}
	}))
	t.Cleanup(crm.Close)
	in, o := prepare(t, nil, bus+memory+vault+example(t, "concepts.md", "State and secrets in steps")+`---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: crm}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: "`+crm.URL+`"}]}
`)
	in.keep(t, map[string]string{"crm-token": "a-secret-token"})
	in.run(t, o)
	if status, text := in.post(t, "/state/kept", `[{"key":"customer-ann","value":{"since":2019}}]`); status/100 != 2 {
		t.Fatalf("%d %s", status, text)
	}
	in.publish(t, "orders", `{"customer":"nobody","total":1}`)
	in.publish(t, "orders", `{"customer":"ann","total":12.50}`)
	got := <-calls
	if want := (request{"Bearer a-secret-token", `{"customer":"ann","record":{"since":2019},"total":12.50}`}); got != want {
		t.Errorf("the service got %+v, want %+v", got, want)
	}
	if text := in.text(t, "/state/kept/last-ann"); text != `{"total":12.50}` {
		t.Errorf("the state is %s", text)
	}
	if status := in.get(t, "/state/kept/last-nobody"); status != http.StatusNoContent {
		t.Errorf("what was filtered was saved: %d", status)
	}
	if strings.Contains(in.log.String(), "a-secret-token") {
		t.Error("the log has the secret")
	}
}

// moods fails every call of a state store as it is told to.
type moods struct {
	err   atomic.Pointer[error]
	calls atomic.Int64 // since say
}

func (m *moods) say(err error) {
	m.err.Store(&err)
	m.calls.Store(0)
}

// mood counts a call and returns how it ends.
func (m *moods) mood() error {
	defer m.calls.Add(1)
	if err := m.err.Load(); err != nil {
		return *err
	}
	return nil
}

type moody struct {
	state.Driver
	moods *moods
}

func (d moody) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	if err := d.moods.mood(); err != nil {
		return nil, err
	}
	return d.Driver.Get(ctx, keys, r)
}

func (d moody) Apply(ctx context.Context, changes []state.Change) error {
	if err := d.moods.mood(); err != nil {
		return err
	}
	return d.Driver.Apply(ctx, changes)
}

func (m *moods) component() component.Definition {
	return state.Define("moody", component.About{}, func(ctx context.Context, env component.Env, _ struct{}) (state.Driver, error) {
		d, err := statememory.Component.Open(ctx, env, nil)
		if err != nil {
			return nil, err
		}
		return moody{d.(state.Driver), m}, nil
	})
}

const moodyStore = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: kept}
spec: {type: state.moody, version: v1}
---
`

// stepped is a pipeline with one step, and a dead letter.
func stepped(step string) string {
	return `
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  from: {pubsub: bus, topic: in}
  orderingKey: '"one"'
  steps: [` + step + `]
  to: [{pubsub: bus, topic: out}]
  retry: {policy: constant, duration: 1ms, maxRetries: 1}
  deadLetter: {pubsub: bus, topic: graves}
---
`
}

const outAndGraves = `[{"pubsubname":"bus","topic":"out","route":"/out"},{"pubsubname":"bus","topic":"graves","route":"/graves"}]`

// TestStepsWaitForTheirStore: whatever the store says but that the event cannot
// be kept, the event waits, is not acknowledged and not dead-lettered.
func TestStepsWaitForTheirStore(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{
		"enrich": `{enrich: {store: kept, key: event.data.id, as: found}}`, "save": `{save: {store: kept, key: event.data.id}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, outAndGraves)
			m := &moods{}
			in, o := prepare(t, a, bus+moodyStore+stepped(step))
			o.Components = append(components(), m.component())
			in.run(t, o)
			for _, kind := range []fault.Kind{fault.Unavailable, fault.Timeout, fault.Denied, fault.Exhausted, fault.Internal, fault.NotFound, fault.Conflict} {
				m.say(fault.New(kind, "not now: %v", kind))
				in.publish(t, "in", `{"id":"k"}`)
				eventually(t, "the event was tried again", func() bool { return m.calls.Load() > 1 })
				m.say(nil)
				if e, err := cloudevents.Scan([]byte(a.next(t, "/out").body)); err != nil || !strings.HasPrefix(string(e.Data()), `{"id":"k"`) {
					t.Errorf("%v: got %v, %v", kind, e, err)
				}
			}
			m.say(fault.New(fault.Invalid, "such a key there cannot be"))
			in.publish(t, "in", `{"id":"k"}`)
			if dead := a.next(t, "/graves"); !strings.Contains(dead.header.Get("dlqreason"), name) || !strings.Contains(dead.header.Get("dlqreason"), "such a key") {
				t.Errorf("dead letter with %v", dead.header)
			}
		})
	}
}

// TestStepsThatAnEventDoesNotFit: it goes to the dead letter as it came.
func TestStepsThatAnEventDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ step, data, reason string }{
		"no key":      {`{enrich: {store: kept, key: event.data.id, as: x}}`, `{"n":1}`, "enrich key"},
		"empty key":   {`{save: {store: kept, key: '""'}}`, `{"n":1}`, "save"},
		"foreign key": {`{enrich: {store: kept, key: '"other||k"', as: x}}`, `{"n":1}`, "enrich"},
		"no object":   {`{enrich: {store: kept, key: '"k"', as: x}}`, `[1]`, "no JSON object"},
		"program":     {`{save: {store: kept, key: '"k"', jq: '.data.n.x'}}`, `{"n":1}`, "save"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, outAndGraves)
			in := start(t, a, bus+memory+stepped(row.step))
			in.publish(t, "in", row.data)
			dead := a.next(t, "/graves")
			e, err := cloudevents.Scan([]byte(dead.body))
			if err != nil || string(e.Data()) != row.data || !strings.Contains(dead.header.Get("dlqreason"), row.reason) {
				t.Errorf("dead letter %s with %v, %v", dead.body, dead.header, err)
			}
		})
	}
}

// TestSaveKeeps what there is, for as long as it says.
func TestSaveKeeps(t *testing.T) {
	t.Parallel()
	a := newApp(t, outAndGraves)
	in := start(t, a, bus+memory+stepped(`{save: {store: kept, key: event.data.id, ttl: 1s}}`))
	in.publish(t, "in", `{"id":"k", "n":1.0}`)
	a.next(t, "/out")
	if text := in.text(t, "/state/kept/k"); text != `{"id":"k", "n":1.0}` && text != "" { // it may be over
		t.Errorf("kept is %q", text)
	}
	eventually(t, "the time to live is over", func() bool { return in.get(t, "/state/kept/k") == http.StatusNoContent })
}
