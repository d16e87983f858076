package redis

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/pubsub"
)

// captured is testdata/dapr.json.
type captured struct {
	Publishes, Consumes []exchange
	Trims               map[string][]string
}

// exchange is a message and the entry that it is in a stream.
type exchange struct {
	Data, Key string
	Metadata  map[string]string
	Entry     []string
}

func golden(t *testing.T) captured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "dapr.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c captured
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReadsDapr reads what Dapr wrote.
func TestReadsDapr(t *testing.T) {
	t.Parallel()
	s := fake(t)
	d := openAt(t, s.Addr())
	for i, x := range golden(t).Publishes {
		topic := "t" + strconv.Itoa(i)
		if _, err := s.XAdd(topic, "*", x.Entry); err != nil {
			t.Fatal(err)
		}
		got := first(t, d, topic)
		if string(got.Body) != x.Data || got.Key != x.Key || !cmp.Equal(x.Metadata, got.Metadata, cmpopts.EquateEmpty()) {
			t.Errorf("%q: read %q, %v, key %q", x.Entry, got.Body, got.Metadata, got.Key)
		}
	}
}

// TestDaprReads writes what Dapr was seen to read.
func TestDaprReads(t *testing.T) {
	t.Parallel()
	s := fake(t)
	d := openAt(t, s.Addr())
	for i, x := range golden(t).Consumes {
		topic := "t" + strconv.Itoa(i)
		if err := d.Publish(t.Context(), topic, []pubsub.Message{{Data: []byte(x.Data), Key: x.Key, Metadata: x.Metadata}}); err != nil {
			t.Fatal(err)
		}
		entries, err := s.Stream(topic)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if diff := cmp.Diff(x.Entry, entries[0].Values); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// TestKeyInMetadata has an ordering key that no metadata has: Dapr reads it from
// there.
func TestKeyInMetadata(t *testing.T) {
	t.Parallel()
	s := fake(t)
	d := openAt(t, s.Addr())
	if err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x"), Key: "k"}}); err != nil {
		t.Fatal(err)
	}
	entries, err := s.Stream("t")
	if want := []string{"data", "x", "metadata", `{"partitionKey":"k"}`}; err != nil || !cmp.Equal(want, entries[0].Values) {
		t.Errorf("entry %v, %v", entries, err)
	}
	if _, err := s.XAdd("u", "*", []string{"data", "x", "metadata", `{"orderingKey":"z"}`}); err != nil {
		t.Fatal(err)
	}
	if x := first(t, d, "u"); x.Key != "z" {
		t.Errorf("key %q, want z", x.Key)
	}
}

// TestTrims trims as Dapr does.
func TestTrims(t *testing.T) {
	t.Parallel()
	s := fake(t)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := openAt(t, s.Addr()).(*broker)
	it := item{"t", &pubsub.Message{Data: []byte("x")}}
	want := golden(t).Trims
	for name, set := range map[string]func() (least string){
		"maxLenApprox 100": func() string { b.most = "100"; return "" },
		"streamTTL 1h":     func() string { b.most = ""; return "1796023107824-1" },
	} {
		cmd := b.add(it, set())
		got := cmd.Commands()
		got[0], got[2] = strings.ToLower(got[0]), strings.ToLower(got[2])
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
		if err := c.Do(t.Context(), cmd).Error(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
