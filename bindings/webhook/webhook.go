// Package webhook is the binding bindings.webhook: it takes signed HTTP
// requests from providers and turns them into events, and sends signed
// requests to others.
//
// A configuration names a path, the provider's signature scheme and its
// secret; every request that is genuine becomes one event whose id is the
// provider's delivery id, or the CloudEvents it holds. As an output it sends
// what Invoke is given to one address.
//
// Promises: a signature is checked over the raw bytes before anything is
// parsed, in constant time, and a request that is not genuine, stale or
// tampered with gets 401 and nothing else. With answer outcome a sender hears
// success only after the route has settled the event, so what is not delivered
// stays with the sender. With answer accepted it hears 202 once the event is on
// the disk, from where it is delivered at least once, in the order of arrival,
// through crashes. A repetition of a delivery that was taken is answered
// without delivering it again.
//
// Bounds: 16 KiB of headers, 30 s to send a body of up to maxBodySize,
// maxConcurrency requests at once, 1,024 connections for each address (the
// longest idle one gives way), 1,000 events in a batch, 65,536 ids in memory or
// 1,000,000 on disk, maxSpool and maxSpoolSize of waiting events, 8 KiB of
// metadata.
package webhook

import (
	"context"
	"net/netip"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// Component is bindings.webhook.
//
// Answers of the input. Of the route's outcomes, ack and drop are 200 (a drop
// is final: a repetition would end the same way), retry and leave are 503 with
// Retry-After, so that the provider sends again. Other answers: 202 stored
// (answer accepted), 400 not understood, 401 not genuine, 403 a browser of a
// foreign origin, 404 no such path, 405 method, 408 body too slow, 413 too
// large, 415 compressed or not the wanted format, 429 too many at once, 503
// stopping or spool full, 504 not settled in time. 429, 503 and 504 come with
// Retry-After.
//
// Events of plain requests: source is the option or /webhooks/<component>,
// time is that of arrival, and
//
//	signature          id                                     type                        subject
//	github             X-GitHub-Delivery                      com.github.<X-GitHub-Event> repository or organization
//	gitlab             webhook-id, Idempotency-Key, event UUID com.gitlab.<event>, "Merge Request Hook" is merge_request; project path
//	stripe             id of the body                         com.stripe.<type>           id of the object
//	slack              event_id, or trigger_id of a form      com.slack.<event type>, command, interaction; team
//	shopify            X-Shopify-Webhook-Id, -Event-Id        com.shopify.<topic with dots> shop domain
//	standard-webhooks  webhook-id                             webhook.<type of the body>
//	others             idHeader                               webhook.received
//
// Github, shopify, the secret token of gitlab and hmac sign the body only:
// there the delivery id and other headers, with hmac also those of a binary
// CloudEvent, are believed as they are, and only TLS keeps a captured request
// from being sent again under another id.
var Component = bindings.Define("webhook", component.About{
	Summary: "Takes signed HTTP requests (GitHub, GitLab, Stripe, Slack, Shopify, Standard Webhooks, CloudEvents or any HMAC) as events, and sends signed requests",
	Ack:     "In: with answer outcome the sender gets 200 after the route settled the event; with answer accepted it gets 202 after the event is on the disk. Out: the receiver answered 2xx",
	Order:   "Arrival, with answer accepted; a given back event comes again later without holding up the others. With answer outcome requests are independent",
	Limits:  "Bodies 4 MiB, 64 requests at once, 100,000 events or 1 GiB waiting on disk (these are options); headers 16 KiB, 1,024 connections an address, 1,000 events in a batch",
	Scale:   "Put processes behind a load balancer; each remembers delivery ids for itself",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: github
spec:
  type: bindings.webhook
  version: v1
  metadata:
  - name: path
    value: /hooks/github
  - name: signature
    value: github
  - name: secret
    secretKeyRef: {name: github-webhook, key: secret}
  - name: answer
    value: accepted
auth: {secretStore: vault}
`,
	Capabilities: []string{"INPUT_BINDING", "OUTPUT_BINDING"},
	Operations:   []string{"create", "post"},
}, open)

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	if env.Shared == nil {
		env.Shared = &component.Shared{}
	}
	var out *sender
	if !o.URL.IsZero() {
		out = newSender(env.Name, o)
	}
	if !o.input() {
		return out, nil
	}
	in, err := openReceiver(ctx, env, o)
	switch {
	case err != nil:
		return nil, err
	case out != nil:
		return &both{receiver: in, out: out}, nil
	}
	return in, nil
}

// receiver is the input binding.
type receiver struct {
	hook         *hook
	listener     *listener
	leaveAddress func() error
	leaveIDs     func() error // of the spool or the memory
}

func openReceiver(ctx context.Context, env component.Env, o options) (r *receiver, err error) {
	r = &receiver{hook: newHook(env.Name, o, env.Logger)}
	if o.Answer == accepted {
		r.hook.spool, r.leaveIDs, err = openSpool(ctx, env, o)
	} else {
		r.hook.memory, r.leaveIDs, err = openMemory(env, o.ReplayWindow)
	}
	if err != nil {
		return nil, err
	}
	r.listener, r.leaveAddress, err = listen(ctx, env, r.hook)
	if err != nil {
		return nil, errJoin(err, r.leaveIDs())
	}
	env.Logger.Info("webhook registered", "url", "http://"+r.listener.address+r.hook.path, "signature", o.preset(), "answer", o.Answer)
	if r.hook.scheme == nil && !loopback(r.listener.address) {
		env.Logger.Warn("webhook takes unsigned requests from the network; set signature and secret", "address", r.listener.address)
	}
	return r, nil
}

func loopback(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// Read implements [bindings.Reader]. Requests are taken while it runs; others
// get 503.
func (r *receiver) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return r.hook.read(ctx, emit)
}

// Close waits for running requests until ctx ends.
func (r *receiver) Close(ctx context.Context) error {
	err := r.hook.close(ctx)
	err = errJoin(err, r.leaveAddress())
	return errJoin(err, r.leaveIDs())
}

// both is a webhook with a path and a url.
type both struct {
	*receiver
	out *sender
}

// Operations implements [bindings.Invoker].
func (b *both) Operations() []string { return b.out.Operations() }

// Invoke implements [bindings.Invoker].
func (b *both) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	return b.out.Invoke(ctx, r)
}

// Close closes both halves.
func (b *both) Close(ctx context.Context) error {
	return errJoin(b.receiver.Close(ctx), b.out.Close(ctx))
}
