package contract

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const declared = `
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: one}
spec: {pubsubname: mem, topic: one, route: /one}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: two}
spec:
  pubsubname: mem
  topic: two
  deadLetterTopic: dead
  metadata: {colour: blue}
  routes:
    rules:
    - {match: event.type == "a", path: /a}
    - {match: event.data.n > 3, path: /big}
    default: /rest
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: three}
spec:
  pubsubname: mem
  topic: three
  routes: {rules: [{match: event.type == "a", path: /three}]}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: four}
spec:
  pubsubname: mem
  topic: four
  routes: {rules: [{match: event.data.n > 3, path: /four}]}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: dead}
spec: {pubsubname: mem, topic: dead, routes: {default: /dead}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: foreign}
spec: {pubsubname: mem, topic: foreign, routes: {default: /foreign}}
scopes: [other]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: routeless}
spec: {pubsubname: mem, topic: routeless}
---
`

const denied = `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: denied}
spec: {pubsubname: scoped, topic: gone, routes: {default: /gone}}
---
`

// programmatic is every form an app may answer in.
const programmatic = `[
	{"pubsubname":"mem","topic":"p1","route":"p1","metadata":{"rawPayload":false}},
	{"pubsubname":"mem","topic":"p2","routes":{"rules":[{"match":"event.type == \"a\"","path":"/p2a"},{"match":"","path":"/p2b"},{"path":"/never"}]}},
	{"pubsubname":"mem","topic":"p3","route":"/unused","routes":{"default":"/p3"},"deadLetterTopic":"dead"},
	{"pubsubname":"mem","topic":"p4","routes":null,"route":"/p4","metadata":null},
	{"pubsubname":"scoped","topic":"in","route":"/in"},
	{"pubsubname":"mem","topic":"noroute"},
	{"pubsubname":"","topic":"x","route":"/x"},
	{"pubsubname":"mem","topic":"","route":"/x"},
	{"pubsubname":"nope","topic":"x","route":"/x"}]`

// info is a subscription in the metadata document.
type info struct {
	PubSub          string            `json:"pubsubname"`
	Topic           string            `json:"topic"`
	Rules           []rule            `json:"rules"`
	DeadLetterTopic string            `json:"deadLetterTopic"`
	Metadata        map[string]string `json:"metadata"`
	Type            string            `json:"type"`
}

type rule struct {
	Match string `json:"match"`
	Path  string `json:"path"`
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: programmatic}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses + scoped + declared + denied})
	var doc struct {
		Subscriptions []info `json:"subscriptions"`
	}
	if err := json.Unmarshal([]byte(get(t, sc.api+"/metadata").body), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range doc.Subscriptions {
		got[s.PubSub+"/"+s.Topic] = fmt.Sprintf("%s %s %s %s", s.Type, s.Rules, s.DeadLetterTopic, s.Metadata["colour"])
	}
	want := map[string]string{
		"mem/one":   "DECLARATIVE [{ /one}]  ",
		"mem/two":   `DECLARATIVE [{event.type == "a" /a} {event.data.n > 3 /big} { /rest}] dead blue`,
		"mem/three": `DECLARATIVE [{event.type == "a" /three}]  `,
		"mem/four":  "DECLARATIVE [{event.data.n > 3 /four}]  ",
		"mem/dead":  "DECLARATIVE [{ /dead}]  ",
		"mem/p1":    "PROGRAMMATIC [{ /p1}]  ",
		"mem/p2":    `PROGRAMMATIC [{event.type == "a" /p2a} { /p2b} { /never}]  `,
		"mem/p3":    "PROGRAMMATIC [{ /p3}] dead ",
		"mem/p4":    "PROGRAMMATIC [{ /p4}]  ",
		"scoped/in": "PROGRAMMATIC [{ /in}]  ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
	for _, row := range []struct{ name, to, kind, body, path string }{
		{"route", "one", "", `1`, "/one"},
		{"first rule that matches", "two", "a", `{"n":9,"row":1}`, "/a"},
		{"second rule", "two", "b", `{"n":9}`, "/big"},
		{"default", "two", "b", `{"n":1}`, "/rest"},
		{"no match without dead letter", "three", "b", `1`, ""},
		{"a match after it", "three", "a", `2`, "/three"},
		{"an expression that fails goes to the dead letter", "two", "b", `"text"`, "/dead"},
		{"route without slash", "p1", "", `1`, "/p1"},
		{"rule", "p2", "a", `1`, "/p2a"},
		{"rule without match", "p2", "b", `1`, "/p2b"},
		{"routes win over route", "p3", "", `1`, "/p3"},
		{"null routes", "p4", "", `1`, "/p4"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sc.publish(t, "mem/"+row.to+"?metadata.cloudevent.type="+row.kind, row.body)
			if row.path != "" && a.wait(t, row.path, 1)[0].data(t) != row.body {
				t.Errorf("%s got %s", row.path, a.got(row.path)[0].body)
			}
		})
	}
	// Without a dead letter topic, an event whose rule fails is kept.
	sc.publish(t, "mem/four", `"text"`)
	sc.logged(t, regexp.MustCompile(`msg="event (given back|not delivered).*routing rule`))
	for _, path := range []string{"/never", "/foreign", "/unused", "/x", "/gone"} {
		if n := len(a.got(path)); n > 0 {
			t.Errorf("%s was called %d times", path, n)
		}
	}
}

// No rule matches: dropped, and dead-lettered where there is a dead letter.
func TestNoMatchIsDeadLettered(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[
		{"pubsubname":"mem","topic":"a","deadLetterTopic":"d","routes":{"rules":[{"match":"event.type == \"x\"","path":"/x"}]}},
		{"pubsubname":"mem","topic":"d","route":"/d"}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	sc.publishAs(t, "mem/a", ceType, full)
	dead := a.wait(t, "/d", 1)[0].event(t)
	if string(dead["id"]) != `"e1"` || string(dead["topic"]) != `"a"` || string(dead["data"]) != `{"n":1.50}` {
		t.Errorf("dead letter %s", dead)
	}
}

// What an app may answer to GET /dapr/subscribe beside a list.
func TestDiscoveryAnswers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		said answer
		log  string
	}{
		{"none", answer{status: 404}, ""},
		{"empty", answer{}, ""},
		{"null", answer{body: "null"}, ""},
		{"empty list", answer{body: "[]"}, ""},
		{"nonsense", answer{body: "<html>"}, "read subscriptions"},
		{"wrong types", answer{body: `[{"pubsubname":1}]`}, "read subscriptions"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := &app{subscribe: row.said.body}
			a.serve(t)
			sc := start(t, setup{app: a.port, resources: buses + declared})
			sc.publish(t, "mem/one", `1`)
			a.wait(t, "/one", 1)
			if row.log != "" {
				sc.logged(t, regexp.MustCompile(row.log))
			}
		})
	}
	t.Run("suppressed", func(t *testing.T) {
		t.Parallel()
		a := (&app{subscribe: programmatic}).serve(t)
		sc := start(t, setup{app: a.port, resources: buses + declared, flags: []string{"--disable-init-endpoints", "config,subscribe"}})
		sc.publish(t, "mem/one", `1`)
		a.wait(t, "/one", 1)
		if n := len(a.got("/dapr/subscribe")) + len(a.got("/dapr/config")); n > 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Groups: two apps on one broker each get every event, two instances of one app
// share them; {appID} and {namespace} are filled in.
func TestConsumerGroups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shared := func(group string) string {
		return strings.ReplaceAll(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: db}
spec:
  type: pubsub.sqlite
  version: v1
  metadata:
  - {name: connectionString, value: "BUS/bus-{namespace}-{podName}.db"}
  - {name: consumerID, value: "`+group+`"}
`, "BUS", dir)
	}
	const sub = `[{"pubsubname":"db","topic":"a","route":"/a"}]`
	apps := map[string]*app{}
	var first *sidecar
	for _, one := range []struct{ name, id, group string }{
		{"own", "one", "{appID}"}, {"other", "two", "{appID}"}, {"fixed", "three", "g"}, {"fixed too", "four", "g"},
	} {
		a := (&app{subscribe: sub}).serve(t)
		apps[one.name] = a
		first = start(t, setup{id: one.id, app: a.port, resources: shared(one.group), env: []string{"NAMESPACE=ns1", "POD_NAME=p1"}})
	}
	if _, err := os.Stat(filepath.Join(dir, "bus-ns1-p1.db")); err != nil {
		t.Error(err)
	}
	const n = 5
	for i := range n {
		first.publish(t, "db/a", fmt.Sprint(i))
	}
	apps["own"].wait(t, "/a", n)
	apps["other"].wait(t, "/a", n)
	eventually(t, "the group has all", func() bool { return len(apps["fixed"].got("/a"))+len(apps["fixed too"].got("/a")) >= n })
	if got := len(apps["fixed"].got("/a")) + len(apps["fixed too"].got("/a")); got != n {
		t.Errorf("the group got %d of %d", got, n)
	}
}
