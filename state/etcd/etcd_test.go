package etcd

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/port"
)

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, good := range [][]config.Item{
		items("endpoints", "a:1,b:2"),
		items("endpoints", "a:1", "tlsEnable", "true"),
		items("endpoints", "a:1", "ca", "not looked at", "maxTxnOps", "1000"),
	} {
		if ps := Component.Check(good); len(ps) > 0 {
			t.Errorf("%v: %v", good, ps)
		}
	}
	for _, bad := range [][]config.Item{
		items(),
		items("endpoints", ""),
		items("endpoints", "a:1", "maxTxnOps", "0"),
		items("endpoints", "a:1", "tlsEnable", "true", "cert", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"),
		items("endpoints", "a:1", "tlsEnable", "true", "ca", "-----BEGIN NOTHING-----"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
	if d, err := (component.List{Component}).Find("state.etcd", "V2"); err != nil || d.Type != "state.etcd" {
		t.Errorf("version 2 is not found: %v", err)
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	_, err = Component.Open(ctx, env, items("endpoints", fmt.Sprintf("127.0.0.1:%d", p)))
	if kind := fault.KindOf(err); err == nil || kind != fault.Timeout && kind != fault.Unavailable {
		t.Errorf("open: %v of kind %v, want one that is tried again", err, kind)
	}
}

// TestEnvelope reads what Dapr's component writes, byte for byte: nanoseconds in
// the time, and a time to live of nothing with every value.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	s := &store{v2: true}
	for text, want := range map[string]state.Item{
		"0a03227822" + "120c0880e2cfaa061080a8d6b907" + "1a00": {Found: true, Value: []byte(`"x"`), ETag: "7"},
		"0a03227822" + "12060880e2cfaa06" + "1a02083c":         {Found: true, Value: []byte(`"x"`), ETag: "7", Expires: time.Unix(1700000060, 0)},
		"12060880e2cfaa06": {Found: true, Value: []byte{}, ETag: "7"},
		"0a0178" + "12060880e2cfaa06" + "2005" + "2a0161" + "3500": {},
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		got := s.item([]*mvccpb.KeyValue{{Value: raw, ModRevision: 7}})
		if !want.Found {
			if fault.KindOf(got.Err) != fault.Invalid {
				t.Errorf("%s: %+v, want an error of kind invalid", text, got)
			}
			continue
		}
		if got.Err != nil || string(got.Value) != string(want.Value) || got.ETag != want.ETag || !got.Expires.Equal(want.Expires) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

// TestEnvelopeAsWritten holds what is written to its bytes, but for the time.
func TestEnvelopeAsWritten(t *testing.T) {
	t.Parallel()
	s := &store{v2: true}
	got := hex.EncodeToString([]byte(s.encode(&state.Change{Value: []byte(`"x"`), TTL: time.Minute})))
	if len(got) != 34 || got[:14] != "0a032278221206" || got[26:] != "1a02083c" {
		t.Errorf("the envelope is %s", got)
	}
	s.v2 = false
	if got := s.encode(&state.Change{Value: []byte(`"x"`), TTL: time.Minute}); got != `"x"` {
		t.Errorf("version 1 writes %q", got)
	}
}

func TestETags(t *testing.T) {
	t.Parallel()
	s := &store{}
	for _, etag := range []string{"", "0", "-1", "x", "1.5", "99999999999999999999"} {
		if _, err := s.condition(&state.Change{ETag: &etag}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("ETag %q: %v, want kind invalid", etag, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x0a\x01x"))
	f.Add([]byte{0x1a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		value, _, err := decode(b)
		if err != nil && (value != nil || fault.KindOf(err) != fault.Invalid) {
			t.Errorf("%x: %q, %v", b, value, err)
		}
	})
}
