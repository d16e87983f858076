package runtime_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/deadletters"
)

const durableBus = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.sqlite, version: v1, metadata: []}
---
`

const buried = `
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: bus, topic: orders, route: /orders, deadLetterTopic: graves}
---
`

// spaced is an event as only a person would write it: every byte of it counts.
const spaced = "{ \"specversion\" : \"1.0\",\n\t\"id\":\"ord-1\" , \"source\":\"till\",\"type\":\"order.placed\",\"data\" : {\"n\" :  1.00,  \"a\":[ ]} }"

func (in *instance) letters(t *testing.T, query string) []deadletters.Letter {
	t.Helper()
	resp, err := http.Get(in.url + "-penstock/deadletters" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page struct {
		DeadLetters []deadletters.Letter
	}
	text, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(text, &page); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("list: %d %s, %v", resp.StatusCode, text, err)
	}
	return page.DeadLetters
}

// collected waits until n letters are kept, and returns them.
func (in *instance) collected(t *testing.T, n int) (list []deadletters.Letter) {
	t.Helper()
	eventually(t, "dead letters are collected", func() bool { list = in.letters(t, ""); return len(list) == n })
	return list
}

func (in *instance) replay(t *testing.T, body string) deadletters.Result {
	t.Helper()
	status, text := in.post(t, "-penstock/deadletters/replay", body)
	var res deadletters.Result
	if err := json.Unmarshal([]byte(text), &res); err != nil || status != http.StatusOK {
		t.Fatalf("replay: %d %s, %v", status, text, err)
	}
	return res
}

func (in *instance) publishEvent(t *testing.T, event string) {
	t.Helper()
	resp, err := http.Post(in.url+"/publish/bus/orders", "application/cloudevents+json", strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("publish: %d", resp.StatusCode)
	}
}

// otherReader reads the same topic as the subscription.
const otherReader = `
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: other}
spec: {from: {pubsub: bus, topic: orders}, to: [{app: /other}]}
---
`

func TestDeadLettersAreReplayedToTheirRouteAlone(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]string{"in memory": bus, "durable": durableBus} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, `[{"pubsubname":"bus","topic":"graves","route":"/graves"}]`)
			a.answer("/orders", reply(`{"status":"DROP"}`))
			in := start(t, a, broker+buried+otherReader)
			in.publishEvent(t, spaced)
			first := a.next(t, "/orders")
			a.next(t, "/graves") // the app's own copy
			l := in.isOrder(t)
			in.isGivenUpAgain(t, l)

			a.answer("/orders", reply(``))
			if res := in.replay(t, `{"filter":"event.data.n == 1 && event.type == 'order.placed'"}`); res.Replayed != 1 || res.Left+res.Failed != 0 {
				t.Errorf("result %+v", res)
			}
			a.next(t, "/orders") // of the first replay
			second := a.next(t, "/orders")
			if second.body != first.body || !strings.Contains(first.body, `"data" : {"n" :  1.00,  "a":[ ]},`) {
				t.Errorf("replayed\n%s\nafter\n%s", second.body, first.body)
			}
			for key := range second.header {
				if strings.HasPrefix(strings.ToLower(key), "dlq") {
					t.Errorf("the replayed event has the header %s", key)
				}
			}
			if list := in.letters(t, ""); len(list) != 0 {
				t.Errorf("left: %+v", list)
			}
			if n := a.count("/other"); n > 1 {
				t.Errorf("the other reader of the topic saw the event %d times", n)
			}
		})
	}
}

// count takes the calls that are there and counts those to the path.
func (a *app) count(path string) (n int) {
	for len(a.calls) > 0 {
		if c := <-a.calls; c.path == path {
			n++
		}
	}
	return n
}

// isOrder wants the order as the one dead letter.
func (in *instance) isOrder(t *testing.T) deadletters.Letter {
	t.Helper()
	l := in.collected(t, 1)[0]
	want := deadletters.Letter{
		ID: l.ID, PubSub: "bus", Topic: "graves", EventID: "ord-1", EventType: "order.placed", EventSource: "till",
		Reason: "app said DROP at /orders", Kind: "dropped", Route: "subscription/bus/orders", Target: "app",
		Origin: "bus/orders", Attempts: 1, Time: l.Time, Size: l.Size,
	}
	if d := cmp.Diff(want, l, cmp.AllowUnexported(deadletters.Letter{})); d != "" {
		t.Errorf("letter (-want +got):\n%s", d)
	}
	if text := in.text(t, "/metadata"); !strings.Contains(text, `"deadLetters":"bus/graves: 1"`) {
		t.Errorf("metadata is %s", text)
	}
	return l
}

// isGivenUpAgain replays a letter that becomes another, which knows of that.
func (in *instance) isGivenUpAgain(t *testing.T, l deadletters.Letter) {
	t.Helper()
	if res := in.replay(t, `{"ids":["`+l.ID+`"]}`); res.Failed != 1 || res.Matched != 1 || len(res.Errors) != 1 {
		t.Errorf("result %+v", res)
	}
	var again deadletters.Letter
	eventually(t, "the new dead letter is there and the old is not", func() bool {
		list := in.letters(t, "")
		if len(list) == 1 {
			again = list[0]
		}
		return len(list) == 1 && again.ID != l.ID
	})
	if again.Replays != 1 || again.Attempts != 1 {
		t.Errorf("the new one is %+v", again)
	}
}

func TestDeadLettersOfAPipelineThatStartsFromABinding(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	a.answer("/sink", reply(`{"status":"DROP"}`))
	in := start(t, a, bus+hook("in", "/h", at)+`
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: hooks}
spec: {from: {binding: in}, to: [{app: /sink}], deadLetter: {pubsub: bus, topic: graves}}
`)
	if status := send(at, "/h"); status/100 != 2 {
		t.Fatalf("status %d", status)
	}
	first := a.next(t, "/sink")
	l := in.collected(t, 1)[0]
	if l.Route != "pipeline/hooks" || l.EventID == "" {
		t.Errorf("letter %+v", l)
	}
	a.answer("/sink", reply(``))
	if res := in.replay(t, `{"all":true}`); res.Replayed != 1 {
		t.Errorf("result %+v", res)
	}
	if second := a.next(t, "/sink"); second.body != first.body {
		t.Errorf("replayed\n%s\nafter\n%s", second.body, first.body)
	}
}

func TestDeadLettersOutliveTheProcess(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in, o := prepare(t, a, bus+buried)
	in.run(t, o)
	in.publishEvent(t, spaced)
	l := in.collected(t, 1)[0]
	if err := in.end(); err != nil {
		t.Fatal(err)
	}

	t.Log("without the subscription they can be looked at, and published elsewhere")
	again, o2 := prepare(t, a, bus+strings.Replace(buried, "deadLetterTopic: graves", "", 1)+strings.NewReplacer(
		"name: orders", "name: rescue", "topic: orders", "topic: rescue", "/orders", "/rescue", ", deadLetterTopic: graves", "").Replace(buried))
	o2.DataDir = o.DataDir
	again.run(t, o2)
	if list := again.letters(t, "?topic=graves&attempts=1&reason=drop&since=1h"); len(list) != 1 || list[0].ID != l.ID {
		t.Fatalf("after the restart: %+v", list)
	}
	if list := again.letters(t, "?attempts=2"); len(list) != 0 {
		t.Errorf("twice tried: %+v", list)
	}
	again.write(t, "resources.yaml", bus)
	again.logged(t, 1, taken)
	res := again.replay(t, `{"all":true}`)
	if res.Left != 1 || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error, "route subscription/bus/orders does not run here") ||
		!strings.Contains(res.Errors[0].Error, "--to") {
		t.Errorf("result %+v", res)
	}
	again.write(t, "resources.yaml", bus+strings.NewReplacer(
		"topic: orders", "topic: rescue", "/orders", "/rescue", ", deadLetterTopic: graves", "").Replace(buried))
	again.logged(t, 2, taken)
	if res := again.replay(t, `{"all":true,"to":"bus/rescue"}`); res.Replayed != 1 {
		t.Errorf("result %+v", res)
	}
	if c := a.next(t, "/rescue"); !strings.Contains(c.body, `"data" : {"n" :  1.00,  "a":[ ]},`) {
		t.Errorf("published %s", c.body)
	}
}

func TestCollectorsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in := start(t, a, bus)
	if exists(in.dir, "data", deadletters.File) {
		t.Error("the file is there before it is needed")
	}
	if list := in.letters(t, ""); len(list) != 0 {
		t.Errorf("letters %+v", list)
	}
	in.write(t, "more.yaml", buried)
	in.logged(t, 1, `"Route started" route=deadletters/bus/graves`)
	in.publishEvent(t, spaced)
	in.collected(t, 1)
	if err := os.Remove(filepath.Join(in.dir, "more.yaml")); err != nil {
		t.Fatal(err)
	}
	in.logged(t, 1, `"Route stopped" route=deadletters/bus/graves`)
	in.collected(t, 1)
}

// TestDeadLettersOfOthers are letters that a Dapr sidecar wrote, which say
// nothing about themselves, and one of another app.
func TestDeadLettersOfOthers(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, bus+buried)
	raw := func(data, more string) {
		t.Helper()
		if status, text := in.post(t, "/publish/bus/graves?metadata.rawPayload=true"+more, data); status != http.StatusNoContent {
			t.Fatalf("publish: %d %s", status, text)
		}
	}
	raw(spaced, "&metadata.dlqapp=bakery&metadata.dlqtime=2026-01-01T00:00:00Z")
	raw(spaced, "")
	raw(spaced, "") // alike, and yet another: nothing says that it is not
	list := in.collected(t, 2)
	if list[0].Route != "" || list[0].EventID != "ord-1" {
		t.Errorf("letter %+v", list[0])
	}
	if res := in.replay(t, `{"ids":["`+list[0].ID+`","nosuch"]}`); res.Replayed != 1 || res.Left != 1 || res.Matched != 2 {
		t.Errorf("result %+v", res)
	}
	if c := a.next(t, "/orders"); c.body != spaced {
		t.Errorf("the app got %s", c.body)
	}
	t.Log("two routes have the topic: which is meant?")
	in.write(t, "more.yaml", strings.NewReplacer("name: orders", "name: offers", "topic: orders", "topic: offers").Replace(buried))
	in.logged(t, 1, taken)
	res := in.replay(t, `{"all":true}`)
	if res.Left != 1 || !strings.Contains(res.Errors[0].Error, "subscription/bus/offers, subscription/bus/orders have bus/graves") {
		t.Errorf("result %+v", res)
	}
	if list := in.letters(t, "?filter="+url.QueryEscape(`event.id == "ord-1"`)); len(list) != 1 {
		t.Errorf("letters %+v", list)
	}
}

func TestDeadLettersAreCollectedWhateverTheScopes(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in := start(t, a, strings.Replace(bus, "metadata: []", `metadata: [{name: allowedTopics, value: orders}]`, 1)+buried)
	in.publishEvent(t, spaced)
	in.collected(t, 1)
	if status, text := in.post(t, "-penstock/deadletters/replay", `{"all":true,"to":"bus/graves"}`); status != http.StatusForbidden {
		t.Errorf("replay to a topic out of scope: %d %s", status, text)
	}
	in.collected(t, 1)
}

// TestAStopWaitsForAReplay stops the instance while the app has a replayed event.
func TestAStopWaitsForAReplay(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in, o := prepare(t, a, durableBus+buried)
	in.run(t, o)
	in.publishEvent(t, spaced)
	in.publishEvent(t, strings.Replace(spaced, "ord-1", "ord-2", 1))
	in.collected(t, 2)
	a.count("")
	release := make(chan struct{})
	a.answer("/orders", func(http.ResponseWriter, *http.Request) { <-release })
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Post(in.url+"-penstock/deadletters/replay", "application/json", strings.NewReader(`{"all":true,"rate":0.1}`))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answer <- string(text)
	}()
	left := "ord-2" // without a key, they may be collected the other way round
	if strings.Contains(a.next(t, "/orders").body, left) {
		left = "ord-1"
	}
	ended := make(chan error, 1)
	go func() { ended <- in.end() }()
	in.logged(t, 1, "shutting down")
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if text := <-answer; !strings.Contains(text, "Penstock is stopping; the rest stays") {
		t.Errorf("the replay was answered with %s", text)
	}

	again, o2 := prepare(t, a, durableBus+buried)
	o2.DataDir = o.DataDir
	again.run(t, o2)
	if list := again.letters(t, ""); len(list) != 1 || list[0].EventID != left {
		t.Errorf("after the stop: %+v", list)
	}
}

// TestReplayWaitsForAReload replays while its route drains, to be replaced.
func TestReplayWaitsForAReload(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in := start(t, a, bus+buried)
	in.publish(t, "orders", `1`)
	in.collected(t, 1)
	a.count("")
	release := make(chan struct{})
	a.answer("/orders", func(http.ResponseWriter, *http.Request) { <-release })
	in.publish(t, "orders", `2`)
	a.next(t, "/orders")
	in.write(t, "resources.yaml", bus+strings.Replace(buried, "/orders", "/new", 1))
	in.routeIs(t, `"state":"stopping"`)
	done := make(chan deadletters.Result, 1)
	go func() { done <- in.replay(t, `{"all":true}`) }()
	select {
	case res := <-done:
		close(release)
		t.Fatalf("it did not wait: %+v", res)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if res := <-done; res.Replayed != 1 {
		t.Errorf("result %+v", res)
	}
	a.next(t, "/new")
}

// TestReplayToTheNextStream replays what a stream gave up that has ended: the
// next one of its topic gets it.
func TestReplayToTheNextStream(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	c := in.dial(t)
	first := live(t, c, "orders", "graves")
	in.routeIs(t, "deadletters/bus/graves")
	in.publish(t, "orders", `{"n":1}`)
	id := first.next().GetId()
	first.answer(id, rtv1.TopicEventResponse_DROP)
	in.collected(t, 1)
	first.leave()
	eventually(t, "the stream is gone", func() bool { return in.streamsListed(t) == 0 })
	if res := in.replay(t, `{"all":true}`); res.Left != 1 {
		t.Errorf("without a stream: %+v", res)
	}
	second := live(t, c, "orders", "graves")
	done := make(chan deadletters.Result, 1)
	go func() { done <- in.replay(t, `{"all":true}`) }()
	if got := second.next().GetId(); got != id {
		t.Errorf("got %s, want %s", got, id)
	}
	second.answer(id, rtv1.TopicEventResponse_SUCCESS)
	if res := <-done; res.Replayed != 1 {
		t.Errorf("result %+v", res)
	}
}

// TestReplaysKeepTheOrder holds that replayed events with one partition key are
// delivered one after the other, the oldest first, as they were the first time.
func TestReplaysKeepTheOrder(t *testing.T) {
	t.Parallel()
	const n = 8
	a := newApp(t, `[]`)
	a.answer("/orders", reply(`{"status":"DROP"}`))
	in := start(t, a, bus+buried)
	for i := range n {
		if status, text := in.post(t, "/publish/bus/orders?metadata.partitionKey=k", strconv.Itoa(i)); status != http.StatusNoContent {
			t.Fatalf("publish: %d %s", status, text)
		}
	}
	in.collected(t, n)
	var now, most atomic.Int32
	a.answer("/orders", func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-time.After(5 * time.Millisecond)
		now.Add(-1)
	})
	if res := in.replay(t, `{"all":true}`); res.Replayed != n {
		t.Errorf("result %+v", res)
	}
	if most.Load() != 1 {
		t.Errorf("%d were under way at once", most.Load())
	}
}
