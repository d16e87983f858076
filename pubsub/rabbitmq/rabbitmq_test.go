package rabbitmq

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/fake/amqp"
)

func TestSuites(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, amqp.Start(t).URL())
}

func TestCases(t *testing.T) { cases(t, amqp.Start(t).URL()) }

func TestRestart(t *testing.T) {
	t.Parallel()
	s := amqp.Start(t)
	restarts(t, s.URL(), s.Stop, func() { s.Restart(t) })
}

// TestAlarm has a server that takes no messages for want of memory.
func TestAlarm(t *testing.T) {
	t.Parallel()
	s := amqp.Start(t)
	d := bus(t, s.URL(), pubsub.Subscription{Topic: "t"}, nil)
	m := subscribe(t, d, pubsub.Subscription{Topic: "t"})
	send(t, d, "t", text("1"))
	for _, name := range []string{"low on memory", "low on disk"} {
		s.Alarm(name)
		var err error
		for err == nil || !strings.Contains(err.Error(), name) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err = d.Publish(ctx, "t", []pubsub.Message{text("blocked")})
			cancel()
			if err != nil && !fault.Retriable(err) && kindIn(err) != fault.Timeout && kindIn(err) != fault.Unavailable {
				t.Fatalf("publish: %v", err)
			}
		}
		s.Alarm("")
		for d.Publish(t.Context(), "t", []pubsub.Message{text("after")}) != nil { // until we are told
		}
		for after := false; !after; { // what was blocked may come too: its end was unknown
			select {
			case x := <-m.got:
				after = string(x.Body) == "after"
				x.Settle(cloudevents.Acked())
			case <-time.After(while):
				t.Fatal("nothing comes")
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	url := amqp.Start(t).URL()
	for name, row := range map[string]struct {
		options map[string]string
		kind    fault.Kind
	}{
		"nobody there":   {map[string]string{"connectionString": "amqp://127.0.0.1:1/"}, fault.Unavailable},
		"wrong password": {map[string]string{"connectionString": strings.Replace(url, "guest@", "letmein@", 1)}, fault.Denied},
		"no such vhost":  {map[string]string{"connectionString": url + "other"}, fault.Denied},
		"no certificate": {map[string]string{"connectionString": "amqps://127.0.0.1:1", "caCert": "-----BEGIN CERTIFICATE-----\n"}, fault.Invalid},
		"no such file":   {map[string]string{"connectionString": "amqps://127.0.0.1:1", "caCert": "no/such.pem"}, fault.NotFound},
	} {
		d, err := tryOpen(t.Context(), url, row.options)
		if err == nil {
			shut(t, d)
		}
		if err == nil || fault.KindOf(err) != row.kind || strings.Contains(err.Error(), "letmein") {
			t.Errorf("%s: %v (%v), want %v", name, err, fault.KindOf(err), row.kind)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tryOpen(ctx, url, nil); err == nil {
		t.Error("opened although the context has ended")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		options map[string]string
		problem string
	}{
		"Dapr's": {map[string]string{
			"hostname": "h", "protocol": "amqps", "username": "u", "password": "p@", "durable": "true", "publisherConfirm": "true",
			"autoAck": "true", "requeueInFailure": "true", "reconnectWaitSeconds": "5", "ttlInSeconds": "60", "clientName": "me", "heartBeat": "10s",
			"publishMessagePropertiesToMetadata": "true", "concurrency": "single", "deliveryMode": "0", "maxLen": "3", "maxLenBytes": "4", "prefetchCount": "10",
		}, ""},
		"passive":        {map[string]string{"exchangeDeclareMode": "passive", "exchangeKind": "x-odd"}, ""},
		"kind":           {map[string]string{"exchangeKind": "x-odd"}, "exchangeKind"},
		"delivery mode":  {map[string]string{"deliveryMode": "3"}, "deliveryMode"},
		"prefetch":       {map[string]string{"prefetchCount": "70000"}, "prefetchCount"},
		"length":         {map[string]string{"maxLen": "-1"}, "maxLen"},
		"two protocols":  {map[string]string{"connectionString": "amqp://h", "protocol": "amqps"}, "protocol"},
		"address":        {map[string]string{"connectionString": "amqp://u:se cret@h"}, "connectionString"},
		"port":           {map[string]string{"connectionString": "amqp://u:secret@h:x"}, "connectionString"},
		"external plain": {map[string]string{"connectionString": "amqp://h", "saslExternal": "true", "clientCert": "c", "clientKey": "k"}, "saslExternal"},
		"half a pair":    {map[string]string{"clientKey": "k"}, "clientCert"},
		"heartbeat":      {map[string]string{"heartBeat": "1ms"}, "heartBeat"},
	} {
		var items []config.Item
		for name, value := range row.options {
			items = append(items, config.Item{Name: name, Value: value})
		}
		ps := Component.Check(items)
		if row.problem == "" && len(ps) > 0 || row.problem != "" && !strings.Contains(ps.Error(), row.problem) || strings.Contains(ps.Error(), "secret") {
			t.Errorf("%s: %v, want %q", name, ps, row.problem)
		}
	}
	o := options{Hostname: "h:1", Username: "u", Password: component.NewSecret("p@/")}
	if got := o.config().URL; got != "amqp://u:p%40%2F@h:1" {
		t.Errorf("address %s", got)
	}
}
