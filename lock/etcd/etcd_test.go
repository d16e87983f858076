package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/port"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	good := []config.Item{{Name: "endpoints", Value: "a:1,b:2"}, {Name: "keyPrefixPath", Value: "app"}, {Name: "keyPrefix", Value: "none"}}
	if ps := Component.Check(good); len(ps) > 0 {
		t.Errorf("good options: %v", ps)
	}
	for name, bad := range map[string][]config.Item{
		"endpoints": nil,
		"ca":        {{Name: "endpoints", Value: "a:1"}, {Name: "tlsEnable", Value: "true"}, {Name: "ca", Value: "-----BEGIN NOTHING-----"}},
		"keyPrefix": {{Name: "endpoints", Value: "a:1"}, {Name: "keyPrefix", Value: "a||b"}},
	} {
		if ps := Component.Check(bad); len(ps) == 0 || !strings.Contains(ps.Error(), name) {
			t.Errorf("%v: %v, want a word about %s", bad, ps, name)
		}
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
	env := component.Env{Name: "locks", Logger: slog.New(slog.DiscardHandler)}
	_, err = Component.Open(ctx, env, []config.Item{{Name: "endpoints", Value: fmt.Sprintf("127.0.0.1:%d", p)}})
	if kind := fault.KindOf(err); err == nil || kind != fault.Timeout && kind != fault.Unavailable {
		t.Errorf("open: %v of kind %v, want one that is tried again", err, kind)
	}
}
