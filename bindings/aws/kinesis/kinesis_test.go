package kinesis

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

// suite runs what every binding promises; find returns the record with a key.
func suite(t *testing.T, fresh func(*testing.T) map[string]string, find func(t *testing.T, options map[string]string, key string) []byte) {
	t.Helper()
	create := func(data []byte, key string) bindings.Request {
		return bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"partitionKey": key}}
	}
	conform.Binding(t, Component, conform.BindingSetup{
		Options: fresh,
		Wrong:   map[string]map[string]string{"secretKey": {"secretKey": ""}},
		MaxBody: 1 << 19,
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x")}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			key := conform.Unique(t)
			r := create(data, key)
			if _, err := out.Invoke(t.Context(), &r); err != nil {
				return nil, err
			}
			return find(t, options, key), nil
		},
		Fails: []conform.BindingFailure{
			{Name: "long key", Kind: fault.Invalid, Request: create(nil, strings.Repeat("ä", 257))},
			{Name: "too large", Kind: fault.Invalid, Request: create(make([]byte, 1<<20), "k")},
		},
	})
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := awsfake.Start(t)
	suite(t, func(t *testing.T) map[string]string {
		o := s.Options()
		o["streamName"] = conform.Unique(t)
		s.Stream(o["streamName"])
		return o
	}, func(t *testing.T, o map[string]string, key string) []byte {
		for _, r := range s.Records(o["streamName"]) {
			if r.Key == key {
				return r.Data
			}
		}
		t.Errorf("no record with key %s", key)
		return nil
	})
}

func opened(t *testing.T, s *awsfake.Server, stream string) (component.Driver, error) {
	t.Helper()
	o := s.Options()
	o["streamName"] = stream
	var items []config.Item
	for name, value := range o {
		items = append(items, config.Item{Name: name, Value: value})
	}
	return Component.Open(t.Context(), component.Env{Name: "clicks", Shared: &component.Shared{}}, items)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	const n = 300
	s := awsfake.Start(t)
	s.Stream("clicks")
	d, err := opened(t, s, "clicks")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context())
	s.Delay(20 * time.Millisecond)
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			if _, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "create", Data: fmt.Append(nil, i)}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := s.Calls("PutRecords"); got > n/2 {
		t.Errorf("%d requests for %d records", got, n)
	}
	seen := map[string]bool{}
	for _, r := range s.Records("clicks") {
		seen[string(r.Data)] = true
	}
	if len(seen) != n {
		t.Errorf("%d records", len(seen))
	}
}

func TestRecordThatFailsAlone(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	s.Stream("clicks")
	d, err := opened(t, s, "clicks")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context())
	r := &bindings.Request{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"partitionKey": "throttled"}}
	if _, err := d.(bindings.Invoker).Invoke(t.Context(), r); err == nil || fault.KindOf(err) != fault.Exhausted || !fault.Retriable(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := d.(bindings.Invoker).Invoke(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func TestMissingStream(t *testing.T) {
	t.Parallel()
	if _, err := opened(t, awsfake.Start(t), "none"); err == nil || fault.KindOf(err) != fault.NotFound {
		t.Fatalf("got %v", err)
	}
}
