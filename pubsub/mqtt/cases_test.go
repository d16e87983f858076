package mqtt

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	v3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	client "github.com/penstock-io/penstock/client/mqtt"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/mqttserver"
)

// plain is a client of the server that knows nothing of Penstock.
func plain(t *testing.T, s *mqttserver.Server) v3.Client {
	t.Helper()
	c := v3.NewClient(v3.NewClientOptions().AddBroker("tcp://" + s.Addr()).SetClientID(conform.Unique(t)))
	if k := c.Connect(); k.Wait() && k.Error() != nil {
		t.Fatal(k.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		c := plain(t, s)
		d := opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, d, "t")
		c.Publish("t", 1, false, "theirs").Wait()
		x := m.want(t, "theirs")
		if x.Metadata["retained"] != "false" || x.Topic != "t" {
			t.Errorf("topic %q, metadata %v", x.Topic, x.Metadata)
		}
		x.Settle(cloudevents.Acked())
		theirs := make(chan v3.Message, 8)
		c.Subscribe("t", 1, func(_ v3.Client, m v3.Message) { theirs <- m }).Wait()
		ms := []pubsub.Message{{Data: []byte("ours")}, {Data: []byte("kept"), Metadata: map[string]string{"Retain": "yes"}}}
		if err := d.Publish(t.Context(), "t", ms); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"ours", "kept"} {
			if m := <-theirs; string(m.Payload()) != want || m.Qos() != 1 {
				t.Errorf("they received %q with QoS %d, want %q", m.Payload(), m.Qos(), want)
			}
			m.want(t, want).Settle(cloudevents.Acked())
		}
		late := reading(t, d, pubsub.Subscription{Topic: "t", Group: "late"})
		if x := late.want(t, "kept"); x.Metadata["retained"] != "true" {
			t.Errorf("metadata %v of a retained message", x.Metadata)
		} else {
			x.Settle(cloudevents.Acked())
		}
	})
}

func TestWildcards(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		d := opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		all := reading(t, d, pubsub.Subscription{Topic: "#"})
		greet(t, all, d, "a")
		level := reading(t, d, pubsub.Subscription{Topic: "orders/+/new"})
		greet(t, level, d, "orders/x/new")
		below := reading(t, d, pubsub.Subscription{Topic: "orders/#"})
		greet(t, below, d, "orders")
		publish(t, d, "orders/eu/new", "one")
		for _, m := range []*member{all, level, below} {
			x := m.want(t, "one")
			if x.Topic != "orders/eu/new" {
				t.Errorf("received %q from %q", x.Body, x.Topic)
			}
			x.Settle(cloudevents.Acked())
		}
		publish(t, d, "orders/eu/old", "two")
		below.want(t, "two").Settle(cloudevents.Acked())
		all.want(t, "two").Settle(cloudevents.Acked())
		level.none(t)
		all.none(t) // of what the lease says either
	})
}

func TestSharedSubscription(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		a, b := opened(t, def, s.URL()), opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, a); closed(t, b) })
		const topic = "$share/workers/t"
		first := reading(t, a, pubsub.Subscription{Topic: topic})
		greet(t, first, a, "t")
		second := reading(t, b, pubsub.Subscription{Topic: topic})
		got := map[string]int{}
		shares := map[*member]int{}
		take := func(m *member, x *cloudevents.Delivery) {
			x.Settle(cloudevents.Acked())
			if string(x.Body) != "hello" {
				got[string(x.Body)]++
			}
			shares[m]++
		}
		for last := time.After(patience); shares[second] == 0; { // until the other has its share
			publish(t, a, "t", "hello")
			select {
			case x := <-first.got:
				take(first, x)
			case x := <-second.got:
				take(second, x)
			case <-last:
				t.Fatal("the second process gets nothing")
			}
		}
		const n = 50
		for i := range n {
			publish(t, a, "t", strconv.Itoa(i))
		}
		for last := time.After(patience); len(got) < n; {
			select {
			case x := <-first.got:
				take(first, x)
			case x := <-second.got:
				take(second, x)
			case <-last:
				t.Fatalf("%d of %d came", len(got), n)
			}
		}
		for body, times := range got {
			if times != 1 {
				t.Errorf("%s came %d times", body, times)
			}
		}
	})
}

func TestUnsubscribeOnClose(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		d := opened(t, def, s.URL())
		sub := pubsub.Subscription{Topic: "t", Metadata: map[string]string{"UnsubscribeOnClose": "true"}}
		m := reading(t, d, sub)
		greet(t, m, d, "t")
		m.stop()
		closed(t, d)
		d = opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		publish(t, d, "t", "missed")
		m = reading(t, d, sub)
		m.none(t)
		greet(t, m, d, "t")
	})
}

// TestOrderingKey is about the key that version 3 has no place for of its own.
func TestOrderingKey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		d := opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, d, "t")
		publish(t, d, "t", `{"specversion":"1.0","id":"1","source":"s","type":"t","partitionkey":"k"}`, `"partitionkey"`)
		ours := pubsub.Message{Data: []byte(`{"specversion":"1.0","id":"2","source":"s","type":"t"}`), ContentType: cloudevents.ContentType, Key: "ours"}
		if err := d.Publish(t.Context(), "t", []pubsub.Message{ours}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"k", "", "ours"} {
			x := m.next(t)
			if x.Key != want {
				t.Errorf("key %q of %s, want %q", x.Key, x.Body, want)
			}
			x.Settle(cloudevents.Acked())
		}
	})
}

func TestCleanSession(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		a, b := opened(t, def, s.URL(), "cleanSession", "true"), opened(t, def, s.URL(), "cleanSession", "true")
		t.Cleanup(func() { closed(t, a); closed(t, b) })
		first, second := reading(t, a, pubsub.Subscription{Topic: "t"}), reading(t, b, pubsub.Subscription{Topic: "t"})
		greet(t, first, a, "t")
		greet(t, second, a, "t")
		publish(t, a, "t", "to all")
		for _, m := range []*member{first, second} {
			m.want(t, "to all").Settle(cloudevents.Acked())
		}
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{Username: "u", Password: "p@ss"})
		if _, err := tried(t, def, "mqtt://u:wrong@"+s.Addr()); fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "wrong") {
			t.Errorf("wrong password: %v, want denied", err)
		}
		if _, err := tried(t, def, "mqtt://127.0.0.1:1"); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("no server: %v, want unavailable", err)
		}
		d := opened(t, def, "tcp://u:p%40ss@"+s.Addr())
		t.Cleanup(func() { closed(t, d) })
		for _, topic := range []string{"", "a/+", "#", "a\x00b", "\xff"} {
			if err := d.Publish(t.Context(), topic, []pubsub.Message{{}}); kindOf(err) != fault.Invalid {
				t.Errorf("publish to %q: %v, want invalid", topic, err)
			}
		}
		for _, topic := range []string{"", "a/#/b", "a+", "$share/x", "$share//t"} {
			if err := d.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: "g"}, nil); kindOf(err) != fault.Invalid {
				t.Errorf("subscribe to %q: %v, want invalid", topic, err)
			}
		}
		retain := pubsub.Message{Metadata: map[string]string{"retain": "maybe"}}
		if err := d.Publish(t.Context(), "t", []pubsub.Message{retain}); kindOf(err) != fault.Invalid {
			t.Errorf("retain maybe: %v, want invalid", err)
		}
		forget := pubsub.Subscription{Topic: "t", Group: "g", Metadata: map[string]string{"unsubscribeOnClose": "maybe"}}
		if err := d.Subscribe(t.Context(), forget, nil); kindOf(err) != fault.Invalid {
			t.Errorf("unsubscribeOnClose maybe: %v, want invalid", err)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, row := range map[string][2]string{
		"none":         {"url", ""},
		"scheme":       {"url", "http://localhost"},
		"password":     {"url", "mqtt://user:p%zz@localhost"},
		"qos":          {"qos", "3"},
		"maxInFlight":  {"maxInFlight", "0"},
		"leaseTopic":   {"leaseTopic", "a/#"},
		"certificates": {"clientCert", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, def := range components() {
				items := []config.Item{{Name: row[0], Value: row[1]}}
				if row[0] != "url" {
					items = append(items, config.Item{Name: "url", Value: "mqtt://localhost"})
				}
				ps := def.Check(items)
				if errs, _ := ps.Split(false); len(errs) == 0 || !strings.Contains(ps.Error(), row[0]) || strings.Contains(ps.Error(), "p%zz") {
					t.Errorf("%s: %v, want a problem that names %s", def.Type, ps, row[0])
				}
			}
		})
	}
}

// TestTLS has a server behind TLS that asks for a certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := mqttserver.Start(t, mqttserver.Options{})
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go forward(c, s.Addr())
		}
	}()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	each(t, func(t *testing.T, def component.Definition) {
		if _, err := tried(t, def, "mqtts://"+l.Addr().String()); fault.KindOf(err) != fault.Denied {
			t.Errorf("certificate of nobody known: %v, want denied", err)
		}
		d := opened(t, def, "mqtts://"+l.Addr().String(), "caCert", ca)
		t.Cleanup(func() { closed(t, d) })
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, d, "t")
	})
}

func forward(c net.Conn, addr string) {
	defer c.Close()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
	_, _ = io.Copy(c, to)
}

// TestProperties is about what version 5 carries beside the body.
func TestProperties(t *testing.T) {
	t.Parallel()
	s := mqttserver.Start(t, mqttserver.Options{})
	d := opened(t, Component5, s.URL())
	t.Cleanup(func() { closed(t, d) })
	m := reading(t, d, pubsub.Subscription{Topic: "t"})
	greet(t, m, d, "t")
	env := component.Env{AppID: "other", Logger: slog.New(slog.DiscardHandler)}
	c, err := client.Open(t.Context(), env, d.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) })
	event := map[string]string{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "more": "x"}
	if errs := c.Publish(t.Context(), []client.Message{{Topic: "t", Body: []byte("data"), QoS: 1, ContentType: "text/plain", Properties: event}}); errs != nil {
		t.Fatal(errs)
	}
	x := m.want(t, "data")
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t", "ce_more": "x",
		"content-type": "text/plain", "retained": "false",
	}
	if diff := cmp.Diff(want, x.Metadata); diff != "" {
		t.Error(diff)
	}
	x.Settle(cloudevents.Acked())
	ours := pubsub.Message{
		Data: []byte("ours"), ContentType: "image/png", Key: "k", Expires: time.Now().Add(time.Hour),
		Metadata: map[string]string{"a": "Ü", "z": "zero\x00"},
	}
	if err := d.Publish(t.Context(), "t", []pubsub.Message{ours}); err != nil {
		t.Fatal(err)
	}
	x = m.want(t, "ours")
	want = map[string]string{"a": "Ü", "z": "zero\uFFFD", "content-type": "image/png", "retained": "false"}
	if diff := cmp.Diff(want, x.Metadata); diff != "" || x.Key != "k" {
		t.Errorf("key %q, metadata %s", x.Key, diff)
	}
	x.Settle(cloudevents.Acked())
}

// TestUnsubscribeWithMessagesHeld has a server that takes the number of a message
// under way for one of the client's requests: the request must try another.
// Version 3 has no answer that would tell.
func TestUnsubscribeWithMessagesHeld(t *testing.T) {
	t.Parallel()
	def := Component5
	s := mqttserver.Start(t, mqttserver.Options{})
	d := opened(t, def, s.URL())
	sub := pubsub.Subscription{Topic: "t", Metadata: map[string]string{"unsubscribeOnClose": "true"}}
	m := reading(t, d, sub)
	greet(t, m, d, "t")
	for _, body := range []string{"1", "2", "3", "4", "5", "6"} {
		publish(t, d, "t", body)
		m.want(t, body) // and never settled
	}
	m.stop()
	closed(t, d)
	d = opened(t, def, s.URL())
	t.Cleanup(func() { closed(t, d) })
	publish(t, d, "t", "missed")
	m = reading(t, d, sub)
	for len(m.got) > 0 {
		if x := m.next(t); string(x.Body) == "missed" {
			t.Error("the subscription was not ended")
		}
	}
	greet(t, m, d, "t")
	for len(m.got) > 0 {
		if x := m.next(t); string(x.Body) == "missed" {
			t.Error("the subscription was not ended")
		}
	}
}
