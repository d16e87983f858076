package redis

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	proxy "github.com/penstock-io/penstock/test/fake"
)

func fake(t *testing.T) string {
	t.Helper()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	return s.Addr()
}

func TestSuites(t *testing.T) { suites(t, fake(t)) } // not parallel: the suites count goroutines

func TestCases(t *testing.T) { cases(t, fake(t)) }

func cases(t *testing.T, addr string) {
	t.Helper()
	for name, run := range map[string]func(*testing.T, string){
		"keys": keys, "no input": noInput, "fields": fields, "list order": listOrder, "list ends": listEnds,
		"list taken over": listTakenOver, "list leaves nothing": leavesNothing, "wrong types": wrongTypes, "half-open": halfOpen,
	} {
		t.Run(name, func(t *testing.T) { run(t, addr) })
	}
}

func openAt(t *testing.T, addr string, options map[string]string) component.Driver {
	t.Helper()
	items := []config.Item{{Name: "redisHost", Value: addr}}
	for k, v := range options {
		items = append(items, config.Item{Name: k, Value: v})
	}
	env := component.Env{Name: "jobs", AppID: "app", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

// invoke returns the answer's data and the error's kind.
func invoke(t *testing.T, d component.Driver, operation, data string, metadata ...string) (string, fault.Kind) {
	t.Helper()
	r := bindings.Request{Operation: operation, Data: []byte(data), Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		r.Metadata[metadata[i]] = metadata[i+1]
	}
	resp, err := d.(bindings.Invoker).Invoke(t.Context(), &r)
	if err != nil {
		return "", fault.KindOf(err)
	}
	if resp == nil {
		return "", 0
	}
	return string(resp.Data), 0
}

func keys(t *testing.T, addr string) {
	d, c, k := openAt(t, addr, nil), server(t, addr), conform.Unique(t)
	want := func(text string, kind fault.Kind, operation, data string, metadata ...string) {
		t.Helper()
		if got, k := invoke(t, d, operation, data, metadata...); got != text || k != kind {
			t.Errorf("%s %v: %q, kind %v, want %q, %v", operation, metadata, got, k, text, kind)
		}
	}
	left := func() int64 {
		n, err := say(t, c, "PTTL", k).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	want("", 0, "get", "", "key", k)
	want("", 0, "create", `{"a":1}`, "key", k)
	want(`{"a":1}`, 0, "get", "", "key", k)
	if left() != -1 {
		t.Error("a key without a time to live has one")
	}
	want("", 0, "create", "7", "KEY", k, "ttlInSeconds", "100")
	if n := left(); n < 1000 || n > 100_000 {
		t.Errorf("time to live is %d ms, want about 100 s", n)
	}
	want("8", 0, "increment", "", "key", k)
	want("9", 0, "increment", "", "key", k, "ttlInSeconds", "1000")
	if n := left(); n < 101_000 {
		t.Errorf("time to live after increment is %d ms, want about 1000 s", n)
	}
	want("9", 0, "get", "", "key", k, "delete", "false")
	want("9", 0, "get", "", "key", k, "delete", "true")
	want("", 0, "get", "", "key", k)
	want("1", 0, "increment", "", "key", k)
	want("", 0, "delete", "", "key", k)
	want("", 0, "delete", "", "key", k)
	want("", 0, "create", "word", "key", k)
	want("", fault.Invalid, "increment", "", "key", k)
	want("", fault.Invalid, "create", "x")
	want("", fault.Invalid, "create", "x", "key", k, "ttlInSeconds", "-3")
	say(t, c, "DEL", k)
}

// noInput is Dapr's binding: without a stream or a list there is nothing to read.
func noInput(t *testing.T, addr string) {
	if _, ok := openAt(t, addr, nil).(bindings.Reader); ok {
		t.Error("a binding without stream and list can be read")
	}
}

// read hands n deliveries to do and then ends the read.
func read(t *testing.T, d component.Driver, n int, do func(*cloudevents.Delivery)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := 0
	err := d.(bindings.Reader).Read(ctx, func(_ context.Context, x *cloudevents.Delivery) error {
		if got == n {
			return fault.New(fault.Unavailable, "that is enough")
		}
		do(x)
		if got++; got == n {
			cancel()
		}
		return nil
	})
	if err != nil || got != n {
		t.Fatalf("%d deliveries, want %d; %v", got, n, err)
	}
}

// fields are entries of streams that others added.
func fields(t *testing.T, addr string) {
	stream := conform.Unique(t)
	c := server(t, addr)
	say(t, c, "XADD", stream, "1700000000123-4", "user", "ann", "n", "1")
	say(t, c, "XADD", stream, "*", "data", "<a/>", "content-type", "text/xml", "trace", "7")
	say(t, c, "XADD", stream, "*", "data", `{"a":1}`, "metadata", `{"partitionKey":"k","ttl":"9"}`)
	type row struct {
		Data, Type, Key string
		Metadata        map[string]string
	}
	var got []row
	var first *cloudevents.Event
	read(t, openAt(t, addr, map[string]string{"stream": stream}), 3, func(x *cloudevents.Delivery) {
		if first == nil {
			first = x.Event
		}
		got = append(got, row{string(x.Event.Data()), x.Event.DataContentType(), x.Key, x.Metadata})
		x.Settle(cloudevents.Acked())
	})
	want := []row{
		{`{"n":"1","user":"ann"}`, "application/json", "", map[string]string{"user": "ann", "n": "1"}},
		{"<a/>", "text/xml", "", map[string]string{"content-type": "text/xml", "trace": "7"}},
		{`{"a":1}`, "application/json", "k", map[string]string{"partitionKey": "k", "ttl": "9"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	at, _ := first.Attr("time")
	if first.ID() != "1700000000123-4" || first.Source() != "redis:"+stream || at != "2023-11-14T22:13:20.123Z" {
		t.Errorf("event %s", first.JSON())
	}
	say(t, c, "DEL", stream)
}

func push(t *testing.T, addr, command, list string, from, to int) {
	t.Helper()
	words := []string{command, list}
	for i := from; i <= to; i++ {
		words = append(words, strconv.Itoa(i))
	}
	say(t, server(t, addr), words...)
}

// listOrder has entries come back: the order of the list is kept, over a close
// with all of them open too.
func listOrder(t *testing.T, addr string) {
	list := conform.Unique(t)
	push(t, addr, "RPUSH", list, 1, 5)
	d := openAt(t, addr, map[string]string{"list": list, "queueDepth": "3"})
	var ids, again []string
	read(t, d, 5, func(x *cloudevents.Delivery) {
		ids = append(ids, x.Event.ID()+"="+string(x.Body))
		x.Settle(cloudevents.Left("stopping"))
	})
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	push(t, addr, "RPUSH", list, 6, 6)
	d = openAt(t, addr, map[string]string{"list": list, "queueDepth": "2"})
	read(t, d, 6, func(x *cloudevents.Delivery) {
		again = append(again, x.Event.ID()+"="+string(x.Body))
		x.Settle(cloudevents.Acked())
	})
	if len(again) != 6 || !slices.Equal(ids, again[:5]) || !slices.IsSorted(again) || again[5][len(again[5])-2:] != "=6" {
		t.Errorf("first %q, then %q", ids, again)
	}
}

func listEnds(t *testing.T, addr string) {
	for end, command := range map[string]string{"left": "RPUSH", "right": "LPUSH"} {
		list := conform.Unique(t)
		d := openAt(t, addr, map[string]string{"list": list, "listEnd": end})
		push(t, addr, command, list, 1, 2)
		var got string
		read(t, d, 4, func(x *cloudevents.Delivery) {
			if got += string(x.Body); len(got) == 2 { // while somebody waits for entries
				push(t, addr, command, list, 3, 4)
			}
			x.Settle(cloudevents.Acked())
		})
		if got != "1234" {
			t.Errorf("%s: order %q", end, got)
		}
	}
}

// listTakenOver has a reader that stops showing that it lives, as one that was
// killed: another has its entries with their ids and attempts.
func listTakenOver(t *testing.T, addr string) {
	list := conform.Unique(t)
	push(t, addr, "RPUSH", list, 1, 3)
	d := openAt(t, addr, map[string]string{"list": list})
	var ids, again []string
	read(t, d, 3, func(x *cloudevents.Delivery) { ids = append(ids, x.Event.ID()) })
	c := server(t, addr)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // it beats on, so its key is kept away
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			names, err := say(t, c, "KEYS", "penstock:list:{"+list+"}:alive:*").AsStrSlice()
			if err != nil {
				t.Error(err)
				return
			}
			if len(names) > 0 {
				say(t, c, append([]string{"DEL"}, names...)...)
			}
		}
	}()
	read(t, openAt(t, addr, map[string]string{"list": list}), 3, func(x *cloudevents.Delivery) {
		again = append(again, x.Event.ID())
		x.Settle(cloudevents.Acked())
	})
	close(stop)
	<-stopped
	if !slices.Equal(ids, again) {
		t.Errorf("ids %q, then %q", ids, again)
	}
}

// leavesNothing looks for keys when all is done and the reader is gone.
func leavesNothing(t *testing.T, addr string) {
	list := conform.Unique(t)
	push(t, addr, "RPUSH", list, 1, 20)
	d := openAt(t, addr, map[string]string{"list": list})
	n := 0
	read(t, d, 21, func(x *cloudevents.Delivery) {
		if n++; n == 1 {
			x.Settle(cloudevents.Retried(nil, time.Millisecond))
			return
		}
		if n == 21 && x.Attempt != 2 {
			t.Errorf("attempt %d, want 2", x.Attempt)
		}
		x.Settle(cloudevents.Acked())
	})
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := say(t, server(t, addr), "KEYS", "*"+list+"*").AsStrSlice()
	if want := []string{"penstock:list:{" + list + "}:seq"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("keys %q, want only %q; %v", got, want, err)
	}
}

// wrongTypes has keys of another kind than the options say.
func wrongTypes(t *testing.T, addr string) {
	key := conform.Unique(t)
	c := server(t, addr)
	say(t, c, "SET", key, "x")
	for _, kind := range []string{"stream", "list"} {
		err := openAt(t, addr, map[string]string{kind: key}).(bindings.Reader).Read(t.Context(), nil)
		if fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: %v, want an error of kind invalid", kind, err)
		}
	}
	say(t, c, "DEL", key)
}

// halfOpen has a server that goes away without a word under a reader that waits in
// it.
func halfOpen(t *testing.T, addr string) {
	p, err := proxy.NewProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	list := conform.Unique(t)
	d := openAt(t, p.Addr(), map[string]string{"list": list, "readTimeout": "500ms"})
	for n := range 3 {
		push(t, addr, "RPUSH", list, n, n)
		if n > 0 {
			p.HalfOpen()
		}
	}
	var got string
	read(t, d, 5, func(x *cloudevents.Delivery) {
		x.Settle(cloudevents.Acked())
		if got += string(x.Body); len(got) == 3 {
			p.HalfOpen()
			push(t, addr, "RPUSH", list, 3, 4)
		}
	})
	if got[:3] != "012" || len(got) < 5 {
		t.Errorf("received %q", got)
	}
}
