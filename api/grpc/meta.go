package grpc

import (
	"context"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/api"
)

// GetMetadata describes the instance: all of the metadata document that the
// message has room for.
func (s *service) GetMetadata(context.Context, *rtv1.GetMetadataRequest) (*rtv1.GetMetadataResponse, error) {
	m := s.api.Metadata()
	out := &rtv1.GetMetadataResponse{
		Id: m.ID, RuntimeVersion: m.RuntimeVersion, EnabledFeatures: m.EnabledFeatures,
		ExtendedMetadata: texts(m.Extended), AppConnectionProperties: connection(m.App),
		ActorRuntime: &rtv1.ActorRuntime{
			RuntimeStatus: rtv1.ActorRuntime_ActorRuntimeStatus(rtv1.ActorRuntime_ActorRuntimeStatus_value[m.ActorRuntime.Status]),
			ActiveActors:  actors(m.ActorRuntime.ActiveActors), HostReady: m.ActorRuntime.HostReady, Placement: m.ActorRuntime.Placement,
		},
		Scheduler: &rtv1.MetadataScheduler{ConnectedAddresses: m.Scheduler.Addresses},
		Workflows: &rtv1.MetadataWorkflows{ConnectedWorkers: int32(m.Workflows.Workers)},
	}
	for _, c := range m.Components {
		out.RegisteredComponents = append(out.RegisteredComponents, &rtv1.RegisteredComponents{
			Name: c.Name, Type: c.Type, Version: c.Version, Capabilities: c.Capabilities,
		})
	}
	for _, sub := range m.Subscriptions {
		out.Subscriptions = append(out.Subscriptions, subscription(sub))
	}
	for _, n := range m.HTTPEndpoints {
		out.HttpEndpoints = append(out.HttpEndpoints, &rtv1.MetadataHTTPEndpoint{Name: n.Name})
	}
	for _, n := range m.MCPServers {
		out.McpServers = append(out.McpServers, &rtv1.MetadataMCPServer{Name: n.Name})
	}
	for _, n := range m.WorkflowPolicies {
		out.WorkflowAccessPolicies = append(out.WorkflowAccessPolicies, &rtv1.MetadataWorkflowAccessPolicy{Name: n.Name})
	}
	for _, n := range m.Resiliencies {
		out.Resiliencies = append(out.Resiliencies, &rtv1.MetadataResiliency{Name: n.Name})
	}
	return out, nil
}

func subscription(s api.SubscriptionInfo) *rtv1.PubsubSubscription {
	rules := &rtv1.PubsubSubscriptionRules{}
	for _, r := range s.Rules {
		rules.Rules = append(rules.Rules, &rtv1.PubsubSubscriptionRule{Match: r.Match, Path: r.Path})
	}
	return &rtv1.PubsubSubscription{
		PubsubName: s.PubSub, Topic: s.Topic, Metadata: texts(s.Metadata), Rules: rules, DeadLetterTopic: s.DeadLetterTopic,
		Type: rtv1.PubsubSubscriptionType(rtv1.PubsubSubscriptionType_value[s.Type]),
	}
}

func connection(a api.AppConnection) *rtv1.AppConnectionProperties {
	out := &rtv1.AppConnectionProperties{
		Port: int32(a.Port), Protocol: a.Protocol, ChannelAddress: a.ChannelAddress, MaxConcurrency: int32(a.MaxConcurrency),
	}
	if h := a.Health; h != nil {
		out.Health = &rtv1.AppConnectionHealthProperties{
			HealthCheckPath: h.Path, HealthProbeInterval: h.Interval, HealthProbeTimeout: h.Timeout, HealthThreshold: int32(h.Threshold),
		}
	}
	return out
}

func actors(list []api.ActiveActors) []*rtv1.ActiveActorsCount {
	var out []*rtv1.ActiveActorsCount
	for _, a := range list {
		out = append(out, &rtv1.ActiveActorsCount{Type: a.Type, Count: int32(a.Count)})
	}
	return out
}
