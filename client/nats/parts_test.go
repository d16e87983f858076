package nats

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/fault"
)

func TestNames(t *testing.T) {
	t.Parallel()
	if got := Name("orders", "a_b-C9"); got != "orders-a_b-C9" {
		t.Errorf("a name that servers take became %q", got)
	}
	seen := map[string]string{}
	for _, part := range []string{"a.b", "a_b", "a b", "a>b", "a*b", "ä", "ö", strings.Repeat("x", 300), strings.Repeat("x", 301)} {
		name := Name(part)
		if strings.ContainsAny(name, ". *>\t") || len(name) > 255 || name == "" {
			t.Errorf("%q became %q", part, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q have the name %q", part, other, name)
		}
		seen[name] = part
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]struct{ publish, read bool }{
		"orders": {true, true}, "orders.eu": {true, true}, "o*rders": {true, true},
		"orders.*": {false, true}, "orders.>": {false, true}, ">": {false, true},
		"": {}, ".": {}, "a.": {}, ".a": {}, "a..b": {}, "a b": {}, "a\tb": {}, "a\r\nPUB x": {},
	} {
		if err := ValidSubject(subject); (err == nil) != want.publish || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("publish to %q: %v, want success %t", subject, err, want.publish)
		}
		if err := ValidPattern(subject); (err == nil) != want.read || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("read %q: %v, want success %t", subject, err, want.read)
		}
	}
}

// TestHeaders has metadata go to headers and back, whatever is in it.
func TestHeaders(t *testing.T) {
	t.Parallel()
	metadata := map[string]string{
		"plain": "v", "two\nlines": "v", "value": "a\r\nb", "spaces": " v ", "colon:": "v", "": "empty name", "empty": "",
		"Nats-Rollup": "all", "status": "503", "Penstock-Key": "not the key", "ä": "ö",
	}
	for _, key := range []string{"", "k", "two\nlines"} {
		h := Headers(metadata, key, "id")
		for name, values := range h {
			if strings.ContainsAny(name+values[0], "\r\n") || hasPrefixFold(name, "Nats-") && name != nats.MsgIdHdr {
				t.Errorf("header %q: %q", name, values)
			}
		}
		got := map[string]string{}
		if k := Metadata(h, got); k != key {
			t.Errorf("the key %q came back as %q", key, k)
		}
		want := maps.Clone(metadata)
		delete(want, headerKey) // the name is taken
		if !maps.Equal(got, want) {
			t.Errorf("%v came back as %v", want, got)
		}
	}
	if Headers(nil, "", "") != nil {
		t.Error("nothing to say has headers")
	}
}

func TestAnswersOfStreams(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]error{
		`{"stream":"s","seq":7}`: nil, `{"stream":"s", "domain":"d", "seq":7}`: nil,
		`{}`: jetstream.ErrInvalidJSAck, `no`: jetstream.ErrInvalidJSAck, ``: jetstream.ErrInvalidJSAck,
	} {
		if got := read(&nats.Msg{Data: []byte(body)}); !errors.Is(got.err, want) || got.duplicate != nil {
			t.Errorf("%q: %+v, want %v", body, got, want)
		}
	}
	if got := read(&nats.Msg{Header: nats.Header{"Status": {"503"}}}); !errors.Is(got.err, jetstream.ErrNoStreamResponse) {
		t.Errorf("nobody there: %v", got.err)
	}
	if got := read(&nats.Msg{Data: []byte(`{"stream":"s","seq":3,"duplicate":true}`)}); got.err != nil || got.duplicate == nil || got.duplicate.Sequence != 3 {
		t.Errorf("a duplicate: %+v", got)
	}
	got := read(&nats.Msg{Data: []byte(`{"stream":"s","error":{"code":400,"err_code":10077,"description":"maximum messages exceeded"}}`)})
	if fault.KindOf(Classify(got.err)) != fault.Exhausted {
		t.Errorf("a full stream: %v (%v)", got.err, fault.KindOf(Classify(got.err)))
	}
}

func TestWordsAboutARequest(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		status, text string
		over         bool
		kind         fault.Kind // 0: no error
	}{
		{"100", "Idle Heartbeat", false, 0},
		{"404", "No Messages", true, 0},
		{"408", "Request Timeout", true, 0},
		{"409", "Message Size Exceeds MaxBytes", true, 0},
		{"409", "Batch Completed", true, 0},
		{"409", "Consumer Deleted", true, fault.NotFound},
		{"409", "Leadership Change", true, fault.Unavailable},
		{"409", "Server Shutdown", true, fault.Unavailable},
		{"409", "Exceeded MaxWaiting", true, fault.Unavailable},
		{"503", "", true, fault.Unavailable},
		{"999", "new", true, fault.Unavailable},
	} {
		over, err := word(nats.Header{"Status": {row.status}, "Description": {row.text}})
		if over != row.over || (err == nil) != (row.kind == 0) || err != nil && fault.KindOf(Classify(err)) != row.kind {
			t.Errorf("%s %s: over is %t, %v", row.status, row.text, over, err)
		}
	}
}

// TestQueue has a reader that waits, one that falls behind, and the end.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, done := newQueue(4), make(chan []*taken)
		go func() {
			var got []*taken
			for x := q.pop(t.Context()); x != nil; x = q.pop(t.Context()) {
				got = append(got, x)
			}
			done <- got
		}()
		synctest.Wait() // it has nothing to take
		want := []*taken{{seq: 1}, {seq: 2}, {seq: 3}}
		for _, x := range want {
			q.push(x)
		}
		q.end()
		got := <-done
		if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("popped %v, want what was pushed, in order", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(4)
		for seq := range uint64(3) {
			q.push(&taken{seq: seq})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n := q.room(ctx); n != 0 {
			t.Errorf("room for %d more while less than half is free", n)
		}
		q.pop(t.Context())
		if n := q.room(t.Context()); n != 2 {
			t.Errorf("room for %d more, want 2", n)
		}
		if left := q.close(); len(left) != 2 || left[0].seq != 1 {
			t.Errorf("%d are left, want the two that nobody took", len(left))
		}
		if q.pop(ctx) != nil {
			t.Error("popped though the context has ended")
		}
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := newPace(8000) // a byte each millisecond
		for range 3 {
			if !p.wait(t.Context(), 1000) {
				t.Fatal("it gave up")
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("3000 bytes took %v, want 3s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if p.wait(ctx, 5000) {
			t.Error("it went on though the context ended before its time")
		}
		began = time.Now()
		if free := newPace(0); !free.wait(t.Context(), 1<<30) || time.Since(began) != 0 {
			t.Error("without a limit it waits")
		}
	})
}
