package conform

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func outputCases() []bindingCase {
	return []bindingCase{
		{"output: operations", (*bindingSuite).operations},
		{"output: unknown operations", (*bindingSuite).unknownOperation},
		{"output: bodies arrive as they are", (*bindingSuite).outputBodies},
		{"output: concurrent calls", (*bindingSuite).concurrentCalls},
		{"output: error kinds", (*bindingSuite).errorKinds},
		{"output: cancelled", (*bindingSuite).cancelledCall},
		{"output: close while busy", (*bindingSuite).closeCalling},
	}
}

func invoker(t *testing.T, d component.Driver) bindings.Invoker {
	t.Helper()
	out, ok := d.(bindings.Invoker)
	if !ok {
		t.Fatalf("%T has the output capability and does not implement bindings.Invoker", d)
	}
	return out
}

// operations carries out every operation and checks that requests are left as
// they were.
func (s *bindingSuite) operations(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	out := invoker(t, d)
	if diff := cmp.Diff(s.def.About.Operations, out.Operations()); diff != "" && s.def.About.Operations != nil {
		t.Errorf("operations in About are not those of the driver (-about +driver)\n%s", diff)
	}
	done := map[string]bool{}
	for _, r := range s.Requests(options) {
		before := bindings.Request{Operation: r.Operation, Data: slices.Clone(r.Data), Metadata: maps.Clone(r.Metadata)}
		if _, err := out.Invoke(t.Context(), &r); err != nil {
			t.Errorf("%s: %v", r.Operation, err)
		}
		if diff := cmp.Diff(before, r); diff != "" {
			t.Errorf("%s changed its request (-before +after)\n%s", r.Operation, diff)
		}
		done[r.Operation] = true
	}
	for _, operation := range out.Operations() {
		if !done[operation] {
			t.Errorf("the setup has no request for %s", operation)
		}
	}
}

func (s *bindingSuite) unknownOperation(t *testing.T) {
	d := opened(t, s.def, environment(t), s.Options(t))
	defer shut(t, d)
	for _, operation := range []string{"", "no-such-operation", strings.Repeat("x", 10_000)} {
		_, err := invoker(t, d).Invoke(t.Context(), &bindings.Request{Operation: operation})
		if err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("operation %q: %v, want an error of kind invalid", short([]byte(operation)), err)
		}
	}
}

func (s *bindingSuite) outputBodies(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	for name, data := range map[string][]byte{
		"none": nil, "empty": {}, "not text": []byte("\xff\x00\r\n"), "1 MiB": []byte(strings.Repeat("0123456789abcdef", 1<<16)),
		"JSON": []byte(`{"n": 1.0, "big": 12345678901234567890}`), "quoted": []byte(`"text"`),
	} {
		if s.MaxBody > 0 {
			data = data[:min(len(data), s.MaxBody)]
		}
		got, err := s.RoundTrip(t, invoker(t, d), options, data)
		if err != nil || string(got) != string(data) {
			t.Errorf("%s: %q arrived of %q (%v)", name, short(got), short(data), err)
		}
	}
}

func (s *bindingSuite) concurrentCalls(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	var calls sync.WaitGroup
	for i := range 16 {
		data := []byte(strings.Repeat(string(rune('a'+i)), 1000))
		calls.Go(func() {
			for range 3 {
				got, err := s.RoundTrip(t, invoker(t, d), options, data)
				if err != nil || string(got) != string(data) {
					t.Errorf("%d bytes %q arrived of %d bytes %q (%v)", len(got), short(got), len(data), short(data), err)
				}
			}
		})
	}
	calls.Wait()
}

func (s *bindingSuite) errorKinds(t *testing.T) {
	d := opened(t, s.def, environment(t), s.Options(t))
	defer shut(t, d)
	for _, f := range s.Fails {
		resp, err := invoker(t, d).Invoke(t.Context(), &f.Request)
		if err == nil || fault.KindOf(err) != f.Kind {
			t.Errorf("%s: %v, %v; want an error of kind %v", f.Name, resp, err, f.Kind)
			continue
		}
		if text := err.Error(); strings.Contains(text, "\n") || strings.HasSuffix(text, ".") || len(text) > 5000 {
			t.Errorf("%s: the error is not one line without a full stop: %q", f.Name, text)
		}
	}
}

func (s *bindingSuite) cancelledCall(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	defer shut(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // one that looks at its context too late may find it ended all the same
		r := s.Requests(options)[0]
		if _, err := invoker(t, d).Invoke(ctx, &r); err == nil || fault.KindOf(err) != fault.Unavailable {
			t.Fatalf("call with an ended context: %v, want an error of kind unavailable", err)
		}
	}
}

// closeCalling closes under calls: each must end, whatever its result.
func (s *bindingSuite) closeCalling(t *testing.T) {
	options := s.Options(t)
	d := opened(t, s.def, environment(t), options)
	out := invoker(t, d)
	stop := make(chan struct{})
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for {
				r := s.Requests(options)[0]
				_, _ = out.Invoke(t.Context(), &r) // may fail once the component is closed
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	timer := time.NewTimer(20 * time.Millisecond)
	<-timer.C
	shut(t, d)
	close(stop)
	calls.Wait()
	shut(t, d)
}
