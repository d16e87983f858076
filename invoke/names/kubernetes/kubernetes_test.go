package kubernetes

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		o         options
		namespace string
		app       names.App
		asked     string // of the name server
		port      string
	}{
		{options{ClusterDomain: "cluster.local"}, "", names.App{ID: "shop"}, "shop-dapr.default.svc.cluster.local", "50002"},
		{options{ClusterDomain: "cluster.local"}, "prod", names.App{ID: "shop"}, "shop-dapr.prod.svc.cluster.local", "50002"},
		{options{ClusterDomain: "example.com"}, "prod", names.App{ID: "shop", Namespace: "test"}, "shop-dapr.test.svc.example.com", "50002"},
		{options{Template: "{{.ID}}.{{.Namespace}}.internal:{{.Port}}"}, "prod", names.App{ID: "shop"}, "shop.prod.internal", "50002"},
		{options{Template: "{{.ID}}:7"}, "prod", names.App{ID: "shop"}, "shop", "7"},
	} {
		asked := ""
		r := newResolver(row.o, row.namespace, func(_ context.Context, host string) ([]string, error) {
			asked = host
			return []string{"10.0.0.1", "fd00::1"}, nil
		})
		list, err := r.Resolve(t.Context(), row.app)
		want := "10.0.0.1:" + row.port + " [fd00::1]:" + row.port
		if err != nil || asked != row.asked || strings.Join(list, " ") != want {
			t.Errorf("%+v: asked for %s, found %v, %v; want %s, %s", row, asked, list, err, row.asked, want)
		}
	}
}

func TestNameServer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want fault.Kind
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, fault.NotFound},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, fault.Timeout},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, fault.Unavailable},
	} {
		r := newResolver(options{ClusterDomain: "cluster.local"}, "", func(context.Context, string) ([]string, error) { return nil, row.err })
		if _, err := r.Resolve(t.Context(), names.App{ID: "shop"}); fault.KindOf(err) != row.want {
			t.Errorf("%v became %v, want %v", row.err, err, row.want)
		}
	}
	r := newResolver(options{ClusterDomain: "cluster.local"}, "", func(_ context.Context, host string) ([]string, error) {
		t.Errorf("asked for %s", host)
		return nil, nil
	})
	for _, app := range []names.App{{ID: "a:1/"}, {ID: ""}, {ID: "a", Namespace: "b/c"}, {ID: "a..b"}} {
		if _, err := r.Resolve(t.Context(), app); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%+v: %v", app, err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ option, value, want string }{
		{"clusterDomain", "a b", "cannot be a part of a host name"},
		{"template", "{{.ID", "unclosed action"},
		{"template", "{{.Id}}:1", "can't evaluate field Id"},
		{"template", "{{.ID}}", "no host and port"},
	} {
		problems := Component.Check([]config.Item{{Name: row.option, Value: row.value}})
		if len(problems) != 1 || !strings.Contains(problems[0].Text, row.want) || !strings.Contains(problems[0].Text, row.option) {
			t.Errorf("%+v: %v", row, problems)
		}
	}
}
