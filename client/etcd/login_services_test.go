//go:build services

package etcd

import (
	"errors"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/services"
)

// withUsers turns a cluster into one that wants users: root, and ann, who may use
// the keys below shop/.
func withUsers(t *testing.T, addr string) {
	t.Helper()
	ctx := t.Context()
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Context: ctx})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	_, root := admin.UserAdd(ctx, "root", "geheim")
	_, isRoot := admin.UserGrantRole(ctx, "root", "root")
	_, ann := admin.UserAdd(ctx, "ann", "s3cret")
	_, shop := admin.RoleAdd(ctx, "shop")
	_, may := admin.RoleGrantPermission(ctx, "shop", "shop/", clientv3.GetPrefixRangeEnd("shop/"), clientv3.PermissionType(clientv3.PermReadWrite))
	_, isShop := admin.UserGrantRole(ctx, "ann", "shop")
	_, enabled := admin.AuthEnable(ctx)
	if err := errors.Join(root, isRoot, ann, shop, may, isShop, enabled); err != nil {
		t.Fatal(err)
	}
}

// TestLogin has a cluster of its own that wants users.
func TestLogin(t *testing.T) {
	server, ctx := services.Start(t, "etcd"), t.Context()
	withUsers(t, server.Addr)
	o := Options{Endpoints: []string{server.Addr}, Username: "ann", Password: component.NewSecret("s3cret")}
	c, err := Open(ctx, component.Env{}, o, "shop/probe")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(ctx, "shop/a", "1"); err != nil {
		t.Error(err)
	}
	wrong, nobody := o, Options{Endpoints: o.Endpoints}
	wrong.Password = component.NewSecret("gue55ed")
	for name, try := range map[string]func() error{
		"another path":   func() error { _, err := c.Put(ctx, "other", "1"); return Classify(err) },
		"wrong password": func() error { _, err := Open(ctx, component.Env{}, wrong, "shop/probe"); return err },
		"no user":        func() error { _, err := Open(ctx, component.Env{}, nobody, "shop/probe"); return err },
	} {
		if err := try(); fault.KindOf(err) != fault.Denied || err == nil || strings.Contains(err.Error(), "gue55ed") {
			t.Errorf("%s: %v (%v), want an error of kind denied", name, err, fault.KindOf(err))
		}
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, component.Env{}, o, "shop/probe"); !fault.Retriable(err) {
		t.Errorf("a server that is gone: %v (%v), want an error that is worth another try", err, fault.KindOf(err))
	}
}
