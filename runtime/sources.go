package runtime

import (
	"context"
	"slices"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
)

// Triggers implements api.Sources.
func (r *Runtime) Triggers() []api.Trigger {
	var out []api.Trigger
	for _, p := range r.parts.all() {
		if p.binding == nil {
			continue
		}
		if ticks, ok := p.binding.Ticks(); ok {
			t := triggerOf(&ticks)
			t.Name = p.config.Name
			t.Route, t.Paused = r.reader(t.Name)
			out = append(out, t)
		}
	}
	return out
}

func triggerOf(t *bindings.Ticks) api.Trigger {
	out := api.Trigger{Schedule: t.Schedule, TimeZone: t.TimeZone, NextRun: stamp(t.Next), LastRun: stamp(t.Last.Time), UnderWay: t.UnderWay}
	if !t.Last.Time.IsZero() {
		out.LastID, out.LastOutcome, out.LastReason = t.Last.ID, api.OutcomeWord(t.Last.Outcome), t.Last.Outcome.Reason
	}
	return out
}

// stamp writes a time; none for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// RunTrigger implements api.Sources.
func (r *Runtime) RunTrigger(ctx context.Context, name string) (string, cloudevents.Outcome, error) {
	b, err := r.parts.outputOf(name)
	if err != nil {
		return "", cloudevents.Outcome{}, err
	}
	return b.Fire(ctx)
}

// Webhooks implements api.Sources.
func (r *Runtime) Webhooks() []api.Webhook {
	var out []api.Webhook
	for _, p := range r.parts.all() {
		if p.binding == nil {
			continue
		}
		if hook, ok := p.binding.Hook(); ok {
			w := api.Webhook{Name: p.config.Name, URL: hook.URL, Path: hook.Path, Signature: hook.Signature, Taking: hook.Taking, Deliveries: deliveriesOf(hook.Requests)}
			w.Route, w.Paused = r.reader(w.Name)
			out = append(out, w)
		}
	}
	return out
}

func deliveriesOf(requests []bindings.HookRequest) []api.WebhookDelivery {
	out := make([]api.WebhookDelivery, len(requests))
	for i, q := range requests {
		out[i] = api.WebhookDelivery{
			Time: q.Time.UTC().Format(time.RFC3339Nano), Method: q.Method, Status: q.Status, Bytes: q.Bytes,
			DurationMs: float64(q.Duration.Microseconds()) / 1e3, Remote: q.Remote, Answer: q.Answer, Events: q.IDs,
		}
	}
	return out
}

// reader is the first route that reads a binding, and whether it is paused.
func (r *Runtime) reader(binding string) (route string, paused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for name, is := range r.running {
		if is.binding == binding {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return "", false
	}
	route = slices.Min(all)
	return route, r.paused[route]
}
