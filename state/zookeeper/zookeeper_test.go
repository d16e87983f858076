package zookeeper

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

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
	for _, bad := range [][]config.Item{
		items(),
		items("servers", "a:1", "sessionTimeout", "10ms"),
		items("servers", "a:1", "maxBufferSize", "1"),
		items("servers", "a:1", "maxConnBufferSize", "1"),
		items("servers", "a:1", "keyPrefixPath", "/a/../b"),
		items("servers", "a:1", "keyPrefixPath", "/a\x00b"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
	for prefix, want := range map[string]string{"": "/", "/": "/", "a": "/a", "/a/b/": "/a/b"} {
		if ps := Component.Check(items("servers", "a:1", "keyPrefixPath", prefix)); len(ps) > 0 {
			t.Errorf("%q: %v", prefix, ps)
		}
		if got := (options{KeyPrefixPath: prefix}).root(); got != want {
			t.Errorf("%q is the node %q, want %q", prefix, got, want)
		}
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = Component.Open(ctx, component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items("servers", fmt.Sprintf("127.0.0.1:%d", p)))
	if !fault.Retriable(err) {
		t.Errorf("open: %v, want an error that is tried again", err)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"app||key":                "app||key",
		"app||a.b c%=é":           "app||a.b c%=é",
		"app||a/../../x":          "=app||a=2f=2e=2e=2f=2e=2e=2fx",
		"=a":                      "==3da",
		"..":                      "==2e=2e",
		"zookeeper":               "=zookeeper",
		"a\x00":                   "=a=00",
		"\xff":                    "==ff",
		"":                        "=",
		strings.Repeat("k", 4000): strings.Repeat("k", 4000),
	} {
		if got := name(key); got != want {
			t.Errorf("%q has the name %q, want %q", key, got, want)
		}
		if got, ok := keyOf(want); got != key || !ok {
			t.Errorf("%q is the name of %q (%v), want %q", want, got, ok, key)
		}
	}
	for _, n := range []string{"=a=", "=a=2", "=a=zz", "zookeeper"} {
		if key, ok := keyOf(n); ok {
			t.Errorf("%q is the name of %q", n, key)
		}
	}
}

func TestNameIsUnique(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a.=/|]{0,6}`)).Draw(t, "key")
		if back, ok := keyOf(name(key)); back != key || !ok {
			t.Fatalf("%q has the name %q, which is that of %q", key, name(key), back)
		}
		if !legal(name(key)) {
			t.Fatalf("%q has the name %q, which ZooKeeper does not take", key, name(key))
		}
	})
}

func TestPage(t *testing.T) {
	t.Parallel()
	names := []string{"p4", name("p/2"), "p1", "q", "zookeeper", "p3", "=p=", name("p=0")}
	var got []string
	for token, n := "", 0; n < 10; n++ {
		var keys []string
		if keys, token = page(names, "p", token, 2); len(keys) > 2 {
			t.Fatalf("a page of %d", len(keys))
		}
		if got = append(got, keys...); token == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"p/2", "p1", "p3", "p4", "p=0"}, got); diff != "" {
		t.Errorf("keys (-want +got)\n%s", diff)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]fault.Kind{
		zk.ErrBadVersion: fault.Conflict, zk.ErrNodeExists: fault.Conflict, zk.ErrNoAuth: fault.Denied, zk.ErrNotEmpty: fault.Invalid,
		zk.ErrConnectionClosed: fault.Unavailable, zk.ErrSessionExpired: fault.Unavailable, zk.ErrNoServer: fault.Unavailable,
		context.DeadlineExceeded: fault.Timeout,
	} {
		if got := fault.KindOf(classify(err)); got != want {
			t.Errorf("%v has kind %v, want %v", err, got, want)
		}
	}
}

func TestETags(t *testing.T) {
	t.Parallel()
	for _, etag := range []string{"", "-1", "x", "2147483648"} {
		if _, err := version(&state.Change{ETag: &etag}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("ETag %q: %v, want kind invalid", etag, err)
		}
	}
}
