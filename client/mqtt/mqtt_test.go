package mqtt

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestTopics(t *testing.T) {
	t.Parallel()
	rows := []struct {
		text          string
		topic, filter bool
	}{
		{"a", true, true},
		{"/", true, true},
		{"a/b c/é", true, true},
		{"", false, false},
		{"#", false, true},
		{"a/+/b", false, true},
		{"a/#", false, true},
		{"a/#/b", false, false},
		{"a+", false, false},
		{"a#", false, false},
		{"$share/g/a/+", false, true},
		{"$share/g", true, false},
		{"$share//a", true, false},
		{"$share/+/a", false, false},
		{"a\x00", false, false},
		{"\xff", false, false},
		{strings.Repeat("a", 65536), false, false},
	}
	for _, row := range rows {
		if err := CheckTopic(row.text); (err == nil) != row.topic || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("topic %.20q: %v", row.text, err)
		}
		if err := CheckFilter(row.text); (err == nil) != row.filter || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("filter %.20q: %v", row.text, err)
		}
	}
}

func TestPlainNamesTellApart(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{"a", "b-c"}, {"a-b", "c"}, {"a", "b/c"}, {"a", "b+c"}, {"a/b"}, {"a_b"}, {"a", "b", "1"}, {"a", strings.Repeat("x", 100)}, {strings.Repeat("x", 100)},
	} {
		name := plainName(parts...)
		if other := seen[name]; other != nil {
			t.Errorf("%q and %q are both %s", parts, other, name)
		}
		seen[name] = parts
		if again := plainName(name); again != name || len(name) > 64 || strings.ContainsAny(name, "/+#") {
			t.Errorf("%q became %s, and that %s", parts, name, again)
		}
	}
}

// TestLeaseComesToOneEnd lets two claim at the same time: whoever hears of the
// other's last, both agree.
func TestLeaseComesToOneEnd(t *testing.T) {
	t.Parallel()
	say := func(l *lease, text string) { l.received(&Received{Body: []byte(text)}) }
	for _, order := range [][]string{{"7 a", "7 b"}, {"7 b", "7 a"}, {"8 a", "7 b", "7 a"}, {"7 b", "8 a", "7 b"}} {
		a, b := &lease{name: "a", changed: make(chan struct{})}, &lease{name: "b", changed: make(chan struct{})}
		for _, text := range order {
			say(a, text)
			say(b, text)
		}
		if a.holder != b.holder || (a.mine != nil) == (b.mine != nil) || (a.mine != nil) != (a.holder == "a") {
			t.Errorf("%q: a thinks %s, b thinks %s", order, a.holder, b.holder)
		}
	}
	l := &lease{name: "a", changed: make(chan struct{})}
	say(l, "7 a")
	if say(l, "gone b"); l.mine == nil || !l.contest {
		t.Error("the end of another took the lease away, or was left standing in its place")
	}
	say(l, "9 b")
	if say(l, "nonsense"); l.mine != nil || l.holder != "b" {
		t.Errorf("after a higher claim the holder is %q", l.holder)
	}
	if say(l, "gone b"); l.holder != "" {
		t.Errorf("after its end the holder is %q", l.holder)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for want, errs := range map[fault.Kind][]error{
		fault.Denied:      {packets.ErrorRefusedNotAuthorised, &reasonError{code: 0x87}, fmt.Errorf("x: %w", &reasonError{code: 0x86})},
		fault.Invalid:     {packets.ErrorRefusedIDRejected, &reasonError{code: 0x90}, &reasonError{code: 0x95}},
		fault.Exhausted:   {&reasonError{code: 0x97}},
		fault.Timeout:     {context.DeadlineExceeded},
		fault.Unavailable: {packets.ErrorRefusedServerUnavailable, &reasonError{code: 0x8e}, fmt.Errorf("whatever")},
	} {
		for _, err := range errs {
			if got := fault.KindOf(classify(err)); got != want {
				t.Errorf("%v is %v, want %v", err, got, want)
			}
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"localhost":            "mqtt://localhost:1883",
		"tcp://h:1":            "tcp://h:1",
		"mqtts://u:p@h":        "mqtts://u:p@h:8883",
		"wss://h/mqtt":         "wss://h:443/mqtt",
		"mqtt://[::1]":         "mqtt://[::1]:1883",
		"http://h":             "",
		"mqtt://":              "",
		"mqtt://u:s3cr%zzet@h": "",
	} {
		u, err := Options{URL: component.NewSecret(text)}.parse()
		if want == "" {
			if err == nil || strings.Contains(err.Error(), "s3cr") {
				t.Errorf("%s: %v, want an error without the password", text, err)
			}
		} else if err != nil || u.String() != want {
			t.Errorf("%s became %v (%v), want %s", text, u, err, want)
		}
	}
}

func TestMessageOfVersion5(t *testing.T) {
	t.Parallel()
	m := &Message{
		Topic: "t", Body: []byte("x"), ContentType: "a/b\xff", Key: "k", Expires: time.Now().Add(1500 * time.Millisecond),
		Properties: map[string]string{keyProperty: "not this", "a": strings.Repeat("ü", 40000)},
	}
	p, size := publish5(m)
	if p.Properties.ContentType != "a/b\uFFFD" || *p.Properties.MessageExpiry != 2 || len(p.Properties.User) != 2 {
		t.Errorf("properties %+v", p.Properties)
	}
	for _, u := range p.Properties.User {
		if u.Key == keyProperty && u.Value != "k" || len(u.Value) > longest {
			t.Errorf("property %s is %d bytes, %.10q", u.Key, len(u.Value), u.Value)
		}
	}
	if size < longest {
		t.Errorf("size %d", size)
	}
}
