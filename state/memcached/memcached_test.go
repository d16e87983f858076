package memcached

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/port"
)

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"1000": time.Second, "500ms": 500 * time.Millisecond, "2s": 2 * time.Second} {
		o := options{Timeout: text}
		if got, err := o.timeout(); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"0", "-5", "soon", "-1s", ""} {
		if (options{Timeout: bad}).Check() == nil {
			t.Errorf("timeout %q is accepted", bad)
		}
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	if _, err := Component.Open(t.Context(), env, items("hosts", fmt.Sprintf("127.0.0.1:%d", p))); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("open: %v, want kind unavailable", err)
	}
}

func TestLegal(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 250-len("app||"))
	for _, key := range []string{"app||key", "a:b|c%é", "app||" + long} {
		if got := legal(key); got != key {
			t.Errorf("%q becomes %q", key, got)
		}
	}
	seen := map[string]string{}
	for _, key := range []string{"app||a b", "app||a\tb", "app||" + long + "k", "app||" + long + "l", "other||a b", "a b||c", "a b", strings.Repeat("p", 240) + "||" + strings.Repeat("k", 20), "app||\x7f"} {
		got := legal(key)
		if len(got) > 250 || got == key || strings.ContainsAny(got, " \t") || seen[got] != "" {
			t.Errorf("%q becomes %q, as does %q", key, got, seen[got])
		}
		if strings.HasPrefix(key, "app||") && !strings.HasPrefix(got, "app||sha256:") {
			t.Errorf("%q lost its prefix: %q", key, got)
		}
		seen[got] = key
	}
}

func TestExpiration(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for ttl, want := range map[time.Duration]int32{
		0: 0, -1: 0, time.Millisecond: 1, 90 * time.Second: 90, 30 * 24 * time.Hour: 2_592_000,
		31 * 24 * time.Hour: 1_702_678_400, 100 * 365 * 24 * time.Hour: math.MaxInt32,
	} {
		if got := expiration(ttl, now); got != want {
			t.Errorf("%v: %d, want %d", ttl, got, want)
		}
	}
}
