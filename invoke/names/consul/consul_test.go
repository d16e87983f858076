package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// agent is a Consul agent as far as its documented HTTP API is used here. It
// refuses what the real one does: cached with consistent, names that it does not
// know in a registration, a wrong token.
type agent struct {
	*httptest.Server
	token string

	mu       sync.Mutex // guards what follows
	services map[string]registration
	failing  map[string]bool // ids whose checks do not pass
	nodes    string          // address of the node
	queries  []string        // of services, with their cache header
	down     bool
	changed  chan struct{} // gets one for each registration or deregistration
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{services: map[string]registration{}, failing: map[string]bool{}, nodes: "10.0.0.9", changed: make(chan struct{}, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agent/self", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Config":{}}`) })
	mux.HandleFunc("PUT /v1/agent/service/register", a.register)
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", func(_ http.ResponseWriter, r *http.Request) {
		delete(a.services, r.PathValue("id"))
		a.changed <- struct{}{}
	})
	mux.HandleFunc("GET /v1/agent/service/{id}", func(w http.ResponseWriter, r *http.Request) {
		if s, ok := a.services[r.PathValue("id")]; ok {
			_ = json.NewEncoder(w).Encode(s)
			return
		}
		http.Error(w, "unknown service ID", http.StatusNotFound)
	})
	mux.HandleFunc("GET /v1/health/service/{name}", a.health)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case a.down:
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
		case r.Header.Get("X-Consul-Token") != a.token:
			http.Error(w, "Permission denied", http.StatusForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *agent) register(w http.ResponseWriter, r *http.Request) {
	var s registration
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || s.Name == "" {
		http.Error(w, "Request decode failed", http.StatusBadRequest)
		return
	}
	if s.ID == "" {
		s.ID = s.Name
	}
	a.services[s.ID] = s
	a.changed <- struct{}{}
}

func (a *agent) health(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.queries = append(a.queries, r.PathValue("name")+"?"+r.URL.RawQuery+" "+r.Header.Get("Cache-Control"))
	if q.Has("cached") && q.Has("consistent") {
		http.Error(w, "Cannot specify ?cached with ?consistent", http.StatusBadRequest)
		return
	}
	type entry struct {
		Node    map[string]string
		Service registration
	}
	list := []entry{}
	for id, s := range a.services {
		if s.Name == r.PathValue("name") && (!a.failing[id] || q.Get("passing") == "") {
			list = append(list, entry{map[string]string{"Address": a.nodes}, s})
		}
	}
	_ = json.NewEncoder(w).Encode(list)
}

// do changes the agent.
func (a *agent) do(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func opened(t *testing.T, a *agent, options ...string) *resolver {
	t.Helper()
	items := []config.Item{{Name: "client.address", Value: a.URL}}
	for i := 0; i < len(options); i += 2 {
		items = append(items, config.Item{Name: options[i], Value: options[i+1]})
	}
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*resolver)
}

func find(t *testing.T, r *resolver, id string) string {
	t.Helper()
	list, err := r.Resolve(t.Context(), names.App{ID: id})
	if err != nil {
		return fault.KindOf(err).String()
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	meta := func(p string) map[string]string { return map[string]string{"DAPR_PORT": p} }
	a.do(func() {
		a.services = map[string]registration{
			"s1": {ID: "s1", Name: "shop", Address: "10.0.0.1", Port: 8080, Meta: meta("50002")},
			"s2": {ID: "s2", Name: "shop", Meta: meta("50003")},
			"s3": {ID: "s3", Name: "shop", Address: "10.0.0.3", Meta: meta("50004")},
			"s4": {ID: "s4", Name: "shop", Address: "fd00::4", Meta: meta("50005")},
			"t1": {ID: "t1", Name: "till", Address: "10.0.0.1", Port: 8080},
			"t2": {ID: "t2", Name: "till", Address: "10.0.0.1", Meta: meta("many")},
			"p":  {ID: "p", Name: "a/b", Address: "10.0.0.1", Meta: meta("1")},
		}
		a.failing["s3"] = true
	})
	r := opened(t, a)
	for id, want := range map[string]string{
		"shop": "10.0.0.1:50002 10.0.0.9:50003 [fd00::4]:50005", "till": "not found", "ghost": "not found", "a/b": "10.0.0.1:1",
	} {
		if got := find(t, r, id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	a.do(func() { a.down = true })
	if got := find(t, r, "shop"); got != "internal" {
		t.Errorf("an agent without a leader: %s", got)
	}
	a.Close()
	if got := find(t, r, "shop"); got != "unavailable" {
		t.Errorf("an agent that is away: %s", got)
	}
}

func TestQueryOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		options []string
		want    string
	}{
		{nil, "shop?cached=&passing=true "},
		{[]string{"queryOptions.useCache", "false"}, "shop?passing=true "},
		{[]string{"queryOptions.requireConsistent", "true"}, "shop?consistent=&passing=true "},
		{[]string{"queryOptions.allowStale", "true", "queryOptions.maxAge", "10s", "queryOptions.staleIfError", "1m"}, "shop?cached=&passing=true&stale= max-age=10, stale-if-error=60"},
		{[]string{"client.datacenter", "dc1"}, "shop?cached=&dc=dc1&passing=true "},
		{[]string{"client.datacenter", "dc1", "queryOptions.datacenter", "dc2"}, "shop?cached=&dc=dc2&passing=true "},
		{[]string{"queryOptions.filter", "Service.Tags contains a", "queryOptions.near", "_agent"}, "shop?cached=&filter=Service.Tags+contains+a&near=_agent&passing=true "},
		{[]string{"queryOptions.nodeMeta.zone", "b", "queryOptions.namespace", "n", "queryOptions.partition", "p"}, "shop?cached=&node-meta=zone%3Ab&ns=n&partition=p&passing=true "},
	} {
		a := newAgent(t)
		find(t, opened(t, a, row.options...), "shop")
		if len(a.queries) != 1 || a.queries[0] != row.want {
			t.Errorf("%v: asked %q, want %q", row.options, a.queries, row.want)
		}
	}
}

func shop() names.Self {
	return names.Self{App: names.App{ID: "shop"}, Host: "10.0.0.1", InternalPort: 50002, HTTPPort: 3500, GRPCPort: 50001, AppPort: 8080}
}

// announce announces until the function it returns is called, which returns what
// Announce did.
func announce(t *testing.T, r *resolver) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Announce(ctx, shop()) }()
	end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = end() })
	return end
}

func TestSelfRegister(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	r := opened(t, a, "selfRegister", "true", "selfDeregister", "true", "tags", "dapr,v1,${APP_ID}", "meta.ZONE", "z-${HOST_ADDRESS}")
	r.again = 20 * time.Millisecond
	end := announce(t, r)
	<-a.changed
	want := registration{
		ID: "shop-10.0.0.1-3500", Name: "shop", Address: "10.0.0.1", Port: 8080, Tags: []string{"dapr", "v1", "shop"},
		Meta:   map[string]string{"DAPR_PORT": "50002", "ZONE": "z-10.0.0.1"},
		Checks: []check{{Name: "Dapr Health Status", CheckID: "daprHealth:shop-10.0.0.1-3500", Interval: "15s", HTTP: "http://10.0.0.1:3500/v1.0/healthz?appid=shop"}},
	}
	a.do(func() {
		if got := a.services[want.ID]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("registered %+v\nwant %+v", got, want)
		}
	})
	if got := find(t, r, "shop"); got != "10.0.0.1:50002" {
		t.Errorf("found %s", got)
	}
	// An agent that has forgotten is told again; one that is away is waited for.
	a.do(func() { clear(a.services) })
	<-a.changed
	a.do(func() { a.down = true; clear(a.services) })
	<-time.After(100 * time.Millisecond) // some looks in vain
	a.do(func() { a.down = false })
	<-a.changed
	if err := end(); err != nil {
		t.Error(err)
	}
	if got := find(t, r, "shop"); got != "not found" {
		t.Errorf("after the end: %s", got)
	}
}

func TestRegistrationsOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		options []string
		want    registration
	}{
		"checks": {
			[]string{"selfRegister", "true", "checks", `[{"name":"Health","checkid":"h:${APP_ID}","interval":"15s","http":"http://${HOST_ADDRESS}:${APP_PORT}/health"}]`, "daprPortMetaKey", "PORT"},
			registration{
				ID: "shop-10.0.0.1-3500", Name: "shop", Address: "10.0.0.1", Port: 8080, Meta: map[string]string{"PORT": "50002"},
				Checks: []check{{Name: "Health", CheckID: "h:shop", Interval: "15s", HTTP: "http://10.0.0.1:8080/health"}},
			},
		},
		"advanced": {
			[]string{
				"advancedRegistration.Name", "${APP_ID}", "advancedRegistration.port", "${APP_PORT}", "advancedRegistration.address", "${HOST_ADDRESS}",
				"advancedRegistration.check.name", "Health", "advancedRegistration.check.interval", "15s", "advancedRegistration.check.tlsSkipVerify", "true",
				"advancedRegistration.meta.A.B", "7", "advancedRegistration.tags", "a,b", "advancedRegistration.weights.passing", "3",
			},
			registration{
				ID: "shop", Name: "shop", Address: "10.0.0.1", Port: 8080, Tags: []string{"a", "b"}, Meta: map[string]string{"A.B": "7", "DAPR_PORT": "50002"},
				Check: &check{Name: "Health", Interval: "15s", TLSSkipVerify: true}, Weights: map[string]int{"passing": 3},
			},
		},
	} {
		a := newAgent(t)
		end := announce(t, opened(t, a, row.options...))
		<-a.changed
		got, err := json.Marshal(a.services[row.want.ID])
		want, _ := json.Marshal(row.want)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: registered\n%s\nwant\n%s", name, got, want)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		if len(a.services) != 1 {
			t.Errorf("%s: deregistered without being told to", name)
		}
	}
}

// Without a word of registering, somebody else does it.
func TestRegistersNothingByItself(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	end := announce(t, opened(t, a))
	if err := end(); err != nil || len(a.services) > 0 {
		t.Errorf("registered %v, %v", a.services, err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.token = "s3cr3t-token"
	_, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "client.address", Value: a.URL}, {Name: "client.token", Value: "wr0ng-token"}})
	if fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a wrong token: %v", err)
	}
	r := opened(t, a, "client.token", "s3cr3t-token")
	if got := find(t, r, "shop"); got != "not found" {
		t.Errorf("with the token: %s", got)
	}
	r = opened(t, a, "client.token", "s3cr3t-token", "queryOptions.token", "wr0ng-token")
	if got := find(t, r, "shop"); got != "denied" {
		t.Errorf("with a wrong token for queries: %s", got)
	}
}

func TestAgentThatIsAway(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.Close()
	_, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "client.address", Value: strings.TrimPrefix(a.URL, "http://")}})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("open: %v", err)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ option, value, want string }{
		{"client.scheme", "ftp", "http or https"},
		{"checks", "[{\"nmae\":\"x\"}]", `unknown field "nmae"`},
		{"checks", "soon", "checks"},
		{"advancedRegistration.port", "80", "has no name"},
		{"advancedRegistration.proxy.config", "x", `unknown field "proxy"`},
		{"selfRegister", "perhaps", "selfRegister"},
		{"queryOptions.maxAge", "old", "queryOptions.maxAge"},
	} {
		problems := Component.Check([]config.Item{{Name: row.option, Value: row.value}})
		if len(problems) != 1 || !strings.Contains(problems[0].Text, row.want) {
			t.Errorf("%+v: %v", row, problems)
		}
	}
	problems := Component.Check([]config.Item{{Name: "queryOptions.allowStale", Value: "true"}, {Name: "queryOptions.requireConsistent", Value: "true"}})
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "requireConsistent") {
		t.Errorf("stale and consistent: %v", problems)
	}
}
