package api_test

import (
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
)

// Every method of Dapr's service has a group; one that nobody knows is not
// allowed by any list.
func TestMethodsHaveGroups(t *testing.T) {
	t.Parallel()
	a := api.New("shop", bare{})
	versions := []string{"v1", "v1.0-alpha1", "v1alpha2", "v1.0-beta1"}
	groups := strings.Fields("invoke state publish subscribe bindings secrets actors configuration lock unlock crypto subtlecrypto metadata workflows jobs conversation shutdown")
	var all []api.Rule
	for _, v := range versions {
		for _, g := range groups {
			all = append(all, api.Rule{Name: g, Version: v, Protocol: "grpc"})
		}
	}
	methods := []string{"SubscribeTopicEventsAlpha1"}
	for _, m := range runtimev1.Dapr_ServiceDesc.Methods {
		methods = append(methods, m.MethodName)
	}
	for _, m := range runtimev1.Dapr_ServiceDesc.Streams {
		methods = append(methods, m.StreamName)
	}
	if len(methods) < 60 {
		t.Fatalf("%d methods", len(methods))
	}
	for _, m := range methods {
		full := "/dapr.proto.runtime.v1.Dapr/" + m
		a.SetSurface(api.Surface{Allowed: all})
		if err := a.AllowMethod(full); err != nil {
			t.Errorf("%s is in no group: %v", m, err)
		}
		a.SetSurface(api.Surface{Denied: all})
		err := a.AllowMethod(full)
		if err == nil || api.AsError(err).Problem.GRPCCode() != 12 || fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", m, err)
		}
	}
	a.SetSurface(api.Surface{Allowed: all})
	if a.AllowMethod("/dapr.proto.runtime.v1.Dapr/DropEverything") == nil {
		t.Error("a method that nobody knows is allowed by a list")
	}
}

func TestAllowMethod(t *testing.T) {
	t.Parallel()
	rule := func(name, version, protocol string) []api.Rule {
		return []api.Rule{{Name: name, Version: version, Protocol: protocol}}
	}
	const dapr = "/dapr.proto.runtime.v1.Dapr/"
	for _, row := range []struct {
		name    string
		surface api.Surface
		method  string
		ok      bool
	}{
		{"nothing said", api.Surface{}, dapr + "GetState", true},
		{"denied", api.Surface{Denied: rule("state", "v1", "grpc")}, dapr + "GetState", false},
		{"other version", api.Surface{Denied: rule("state", "v1", "grpc")}, dapr + "QueryStateAlpha1", true},
		{"that version", api.Surface{Denied: rule("state", "v1alpha1", "grpc")}, dapr + "QueryStateAlpha1", false},
		{"word of HTTP", api.Surface{Denied: rule("publish", "v1.0-alpha1", "gRPC")}, dapr + "BulkPublishEventAlpha1", false},
		{"of HTTP only", api.Surface{Denied: rule("state", "v1", "http")}, dapr + "GetState", true},
		{"allowed", api.Surface{Allowed: rule("state", "v1", "grpc")}, dapr + "SaveState", true},
		{"not allowed", api.Surface{Allowed: rule("state", "v1", "grpc")}, dapr + "PublishEvent", false},
		{"nothing that exists allowed", api.Surface{Allowed: rule("nonsense", "v1", "grpc")}, dapr + "PublishEvent", false},
		{"lock is not unlock", api.Surface{Denied: rule("lock", "v1alpha1", "grpc")}, dapr + "UnlockAlpha1", true},
		{"other service", api.Surface{Allowed: rule("state", "v1", "grpc")}, "/grpc.health.v1.Health/Check", true},
	} {
		a := api.New("shop", bare{})
		a.SetSurface(row.surface)
		if err := a.AllowMethod(row.method); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
