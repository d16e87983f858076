package contract

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// Every method, one that is not there, streams and reflection want the token.
func TestGRPCTokens(t *testing.T) {
	t.Parallel()
	sc, client := startGRPC(t, nil, setup{resources: buses, env: []string{"DAPR_API_TOKEN=in"}})
	conn := sc.dial(t)
	for _, row := range []struct {
		name  string
		token []string
		ok    bool
	}{{"none", nil, false}, {"wrong", []string{"no"}, false}, {"empty", []string{""}, false}, {"right", []string{"in"}, true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			for _, v := range row.token {
				ctx = metadata.AppendToOutgoingContext(ctx, "dapr-api-token", v)
			}
			for _, m := range rtv1.Dapr_ServiceDesc.Methods {
				if row.ok && m.MethodName == "Shutdown" {
					continue
				}
				err := conn.Invoke(ctx, "/dapr.proto.runtime.v1.Dapr/"+m.MethodName, &rtv1.GetMetadataRequest{}, &rtv1.GetMetadataResponse{})
				if refused := code(err) == codes.Unauthenticated; refused == row.ok {
					t.Errorf("%s: %v", m.MethodName, err)
				}
			}
			s, err := client.SubscribeTopicEventsAlpha1(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Send(processed("1", success)) // it may be refused already
			if _, err := s.Recv(); (code(err) == codes.Unauthenticated) == row.ok {
				t.Errorf("stream: %v", err)
			}
			names, err := services(ctx, conn)
			if row.ok != slices.Contains(names, "dapr.proto.runtime.v1.Dapr") || (code(err) == codes.Unauthenticated) == row.ok {
				t.Errorf("reflection: %v, %v", names, err)
			}
		})
	}
}

// services asks a server by reflection what it has.
func services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	s, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}) // Recv tells why not
	r, err := s.Recv()
	var names []string
	for _, service := range r.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return names, err
}

// Rules of the Configuration for gRPC leave HTTP alone, and the other way
// round.
func TestGRPCAPIRules(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  api:\n"
	publish := func(c rtv1.DaprClient) error {
		_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a"})
		return err
	}
	bulk := func(c rtv1.DaprClient) error {
		_, err := byOldName(c).BulkPublishEventAlpha1(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "mem", Topic: "a"})
		return err
	}
	document := func(c rtv1.DaprClient) error {
		_, err := c.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
		return err
	}
	for _, row := range []struct {
		name, rules             string
		publish, bulk, document codes.Code
		http                    int
	}{
		{"denied", "    denied: [{name: publish, version: v1, protocol: grpc}]\n", codes.Unimplemented, codes.OK, codes.OK, 204},
		{"alpha denied", "    denied: [{name: publish, version: v1alpha1, protocol: grpc}]\n", codes.OK, codes.Unimplemented, codes.OK, 204},
		{"denied for http", "    denied: [{name: publish, version: v1, protocol: http}]\n", codes.OK, codes.OK, codes.OK, 404},
		{"allowed", "    allowed: [{name: publish, version: v1, protocol: grpc}]\n", codes.OK, codes.Unimplemented, codes.Unimplemented, 204},
		{"allowed for http", "    allowed: [{name: metadata, version: v1, protocol: http}]\n", codes.OK, codes.OK, codes.OK, 404},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sc, client := startGRPC(t, nil, setup{resources: buses, config: head + row.rules})
			got := []codes.Code{code(publish(client)), code(bulk(client)), code(document(client))}
			if diff := cmp.Diff([]codes.Code{row.publish, row.bulk, row.document}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r := send(t, request{url: sc.api + "/publish/mem/a", body: "x"}); r.status != row.http {
				t.Errorf("http: %d %s", r.status, r.body)
			}
		})
	}
}

func TestGRPCLimits(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses, flags: []string{"--max-body-size", "8Mi", "--read-buffer-size", "8Ki"}})
	publish := func(ctx context.Context, size int) codes.Code {
		_, err := client.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "a", Data: make([]byte, size)})
		return code(err)
	}
	with := func(size int) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "x-big", strings.Repeat("x", size))
	}
	for _, row := range []struct {
		name string
		got  codes.Code
		ok   bool
	}{
		{"body beyond the default", publish(t.Context(), 7<<20), true},
		{"body too large", publish(t.Context(), 9<<20), false},
		{"metadata beyond the default", publish(with(7<<10), 1), true},
		{"metadata too large", publish(with(32<<10), 1), false},
		{"after it", publish(t.Context(), 1), true},
	} {
		if (row.got == codes.OK) != row.ok {
			t.Errorf("%s: %s", row.name, row.got)
		}
	}
}

func TestGRPCUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	launch(t, setup{resources: buses, flags: []string{"--unix-domain-socket", dir}})
	client := rtv1.NewDaprClient(dialAt(t, "unix:"+filepath.Join(dir, "dapr-shop-grpc.socket")))
	eventually(t, "metadata over the socket", func() bool {
		r, err := client.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{}, grpc.WaitForReady(true))
		return err == nil && r.GetId() == "shop"
	})
}

// An app over TLS with a certificate of its own, by either flag.
func TestGRPCAppOverTLS(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--app-protocol", "grpcs"}, {"--app-protocol", "grpc", "--app-ssl"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			web := httptest.NewTLSServer(nil) // for its certificate
			certificate := web.TLS.Certificates[0]
			web.Close()
			a := (&grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "a", "/a")}}).serve(t,
				grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})))
			sc := start(t, setup{app: a.port, resources: buses, flags: flags})
			sc.publish(t, "mem/a", `1`)
			a.wait(t, "event /a", 1)
		})
	}
}

// GetMetadata says what the HTTP document says.
func TestGRPCMetadataDocument(t *testing.T) {
	t.Parallel()
	a := (&grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "mine", "/mine")}, health: func(int) error { return nil }}).serve(t)
	policies := "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: res}\nspec: {policies: {}, targets: {}}\n"
	sc, client := startGRPC(t, a, setup{resources: buses + declared + policies, flags: []string{"--app-max-concurrency", "7", "--enable-app-health-check"}})
	_, err := client.SetMetadata(t.Context(), &rtv1.SetMetadataRequest{Key: "colour", Value: "blue"})
	want{}.check(t, err)
	m, err := client.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	want{}.check(t, err)
	var doc struct {
		ID         string            `json:"id"`
		Version    string            `json:"runtimeVersion"`
		Features   []string          `json:"enabledFeatures"`
		Extended   map[string]string `json:"extended"`
		Components []struct {
			Name, Type, Version string
			Capabilities        []string
		} `json:"components"`
		Subscriptions []info `json:"subscriptions"`
		Resiliencies  []struct{ Name string }
		App           struct {
			Port           int
			Protocol       string
			ChannelAddress string
			MaxConcurrency int
			Health         struct {
				HealthCheckPath, HealthProbeInterval, HealthProbeTimeout string
				HealthThreshold                                          int
			}
		} `json:"appConnectionProperties"`
		Actors struct{ RuntimeStatus string } `json:"actorRuntime"`
	}
	if err := json.Unmarshal([]byte(get(t, sc.api+"/metadata").body), &doc); err != nil {
		t.Fatal(err)
	}
	over, http := []any{m.GetId(), m.GetRuntimeVersion(), m.GetEnabledFeatures(), m.GetExtendedMetadata()}, []any{doc.ID, doc.Version, doc.Features, doc.Extended}
	for i, c := range m.GetRegisteredComponents() {
		over, http = append(over, c.GetName(), c.GetType(), c.GetVersion(), c.GetCapabilities()), append(http, doc.Components[i].Name, doc.Components[i].Type, doc.Components[i].Version, doc.Components[i].Capabilities)
	}
	for i, s := range m.GetSubscriptions() {
		over, http = append(over, s.GetPubsubName(), s.GetTopic(), s.GetDeadLetterTopic(), s.GetType().String()), append(http, doc.Subscriptions[i].PubSub, doc.Subscriptions[i].Topic, doc.Subscriptions[i].DeadLetterTopic, doc.Subscriptions[i].Type)
	}
	p, h := m.GetAppConnectionProperties(), m.GetAppConnectionProperties().GetHealth()
	over = append(over, int(p.GetPort()), p.GetProtocol(), p.GetChannelAddress(), int(p.GetMaxConcurrency()), h.GetHealthProbeInterval(), h.GetHealthProbeTimeout(), int(h.GetHealthThreshold()), m.GetActorRuntime().GetRuntimeStatus().String())
	http = append(http, doc.App.Port, doc.App.Protocol, doc.App.ChannelAddress, doc.App.MaxConcurrency, doc.App.Health.HealthProbeInterval, doc.App.Health.HealthProbeTimeout, doc.App.Health.HealthThreshold, doc.Actors.RuntimeStatus)
	if diff := cmp.Diff(http, over); diff != "" {
		t.Errorf("(-http +grpc):\n%s", diff)
	}
	if len(doc.Components) != 2 || len(doc.Subscriptions) < 5 || m.GetExtendedMetadata()["colour"] != "blue" || p.GetProtocol() != "grpc" || m.GetScheduler() == nil || m.GetWorkflows() == nil ||
		len(m.GetResiliencies()) != 1 || len(doc.Resiliencies) != 1 || m.GetResiliencies()[0].GetName() != "res" {
		t.Errorf("metadata %v", m)
	}
}

func TestGRPCShutdown(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		force string
		code  int
	}{{"", 0}, {"false", 0}, {"true", 1}} {
		t.Run("force="+row.force, func(t *testing.T) {
			t.Parallel()
			sc, client := startGRPC(t, nil, setup{resources: buses})
			ctx := t.Context()
			if row.force != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "dapr-force-shutdown", row.force)
			}
			_, err := client.Shutdown(ctx, &rtv1.ShutdownRequest{})
			want{}.check(t, err)
			if got := sc.exit(t); got != row.code {
				t.Errorf("exit code %d, want %d", got, row.code)
			}
		})
	}
}

const grpcPolicies = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: res}
spec:
  policies:
    retries:
      thrice: {policy: constant, duration: 10ms, maxRetries: 2, matching: {gRPCStatusCodes: "8,14"}}
    timeouts: {short: 200ms}
  targets:
    components:
      mem: {inbound: {retry: thrice, timeout: short}}
---
`

// A policy judges a gRPC app by its codes; what it gives up is dead-lettered.
func TestGRPCResiliency(t *testing.T) {
	t.Parallel()
	a := &grpcApp{topics: []*rtv1.TopicSubscription{topic("mem", "dead", "/dead")}}
	rows := []struct {
		name  string
		event func(ctx context.Context) (*rtv1.TopicEventResponse, error)
		times int
	}{
		{"14 matches", func(context.Context) (*rtv1.TopicEventResponse, error) {
			return nil, status.Error(codes.Unavailable, "x")
		}, 3},
		{"8 matches", func(context.Context) (*rtv1.TopicEventResponse, error) {
			return nil, status.Error(codes.ResourceExhausted, "x")
		}, 3},
		{"13 does not", func(context.Context) (*rtv1.TopicEventResponse, error) { return nil, status.Error(codes.Internal, "x") }, 1},
		{"RETRY has no code", func(context.Context) (*rtv1.TopicEventResponse, error) { return said(again) }, 3},
		{"too slow", func(ctx context.Context) (*rtv1.TopicEventResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, 3},
	}
	for i := range rows {
		sub := topic("mem", fmt.Sprintf("t%d", i), fmt.Sprintf("/%d", i))
		sub.DeadLetterTopic = "dead"
		a.topics = append(a.topics, sub)
	}
	a.event = func(ctx context.Context, c grpcCall, _ int) (*rtv1.TopicEventResponse, error) {
		var i int
		if _, err := fmt.Sscanf(c.event.GetPath(), "/%d", &i); err != nil {
			return said(success)
		}
		return rows[i].event(ctx)
	}
	a.serve(t)
	_, client := startGRPC(t, a, setup{resources: buses + grpcPolicies})
	for i := range rows {
		emit(t, client, "mem", fmt.Sprintf("t%d", i), fmt.Sprint(i))
	}
	a.wait(t, "event /dead", len(rows))
	for i, row := range rows {
		if n := len(a.got(fmt.Sprintf("event /%d", i))); n != row.times {
			t.Errorf("%s: delivered %d times, want %d", row.name, n, row.times)
		}
	}
	for _, c := range a.got("event /dead") {
		if x := c.event.GetExtensions().AsMap(); x["topic"] == "dead" {
			t.Errorf("the dead letter is another event: %v", c.event)
		}
	}
}
