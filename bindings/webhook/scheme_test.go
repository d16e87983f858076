package webhook

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
)

const slackExample = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
	"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands" +
	"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"

// vector is one signed request: from the provider's documentation where it has
// one, else computed with another program.
type vector struct {
	name   string
	o      options
	secret string
	header map[string]string
	signed string // the header that holds the signature
	body   string
	at     int64 // zero: no time stamp
}

func vectors() []vector { return append(providerVectors(), otherVectors()...) }

func providerVectors() []vector {
	return []vector{
		{
			"standard webhooks, published",
			options{Signature: standard},
			"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
			map[string]string{
				"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
				"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
			},
			"webhook-signature", `{"test": 2432232314}`, 1614265330,
		},
		{
			"standard webhooks, older names",
			options{Signature: standard},
			"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
			map[string]string{
				"svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "svix-timestamp": "1614265330",
				"svix-signature": "v1a,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
			},
			"svix-signature", `{"test": 2432232314}`, 1614265330,
		},
		{
			"github, published",
			options{Signature: github},
			"It's a Secret to Everybody",
			map[string]string{"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
			"X-Hub-Signature-256", "Hello, World!", 0,
		},
		{
			"slack, published",
			options{Signature: slack},
			"8f742231b10e8888abcd99yyyzzz85a5",
			map[string]string{
				"X-Slack-Request-Timestamp": "1531420618",
				"X-Slack-Signature":         "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
			},
			"X-Slack-Signature", slackExample, 1531420618,
		},
		{
			"stripe",
			options{Signature: stripe},
			"whsec_test_secret",
			map[string]string{"Stripe-Signature": "t=1492774577,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39," +
				"v1=91110bb4292e56d95b06660f55b3f65c0157840684729f1271e6da44c1ed57eb"},
			"Stripe-Signature", `{"id":"evt_1","object":"event","type":"charge.succeeded"}`, 1492774577,
		},
	}
}

func otherVectors() []vector {
	hm := func(sum, encoding, stamp string) options {
		return options{
			Signature: generic, SigHeader: "X-Signature", SigPrefix: "sig=", Algorithm: sum, SigEncoding: encoding, TimeHeader: stamp,
		}
	}
	return []vector{
		{
			"shopify",
			options{Signature: shopify},
			"hush",
			map[string]string{"X-Shopify-Hmac-Sha256": "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I="},
			"X-Shopify-Hmac-Sha256", `{"id":820982911946154508}`, 0,
		},
		{
			"gitlab token",
			options{Signature: gitlab},
			"a secret token",
			map[string]string{"X-Gitlab-Token": "a secret token"},
			"X-Gitlab-Token", "", 0,
		},
		{
			"gitlab signing token",
			options{Signature: gitlab},
			"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
			map[string]string{
				"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
				"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
			},
			"webhook-signature", `{"test": 2432232314}`, 1614265330,
		},
		{"bearer", options{Signature: bearer}, "tok", map[string]string{"Authorization": "bearer tok"}, "Authorization", "", 0},
		{
			"hmac sha1 hex", hm("sha1", "hex", ""), "k3y",
			map[string]string{"X-Signature": "sig=e10dd497e214d3c12496ef4a215a79532e324e2a"},
			"X-Signature", "payload", 0,
		},
		{
			"hmac sha256 base64", hm("sha256", "base64", ""), "k3y",
			map[string]string{"X-Signature": "sig=9TnjJm9ESCJnalPlGJspsCPUAd20TGpju9vL/g7iHMs="},
			"X-Signature", "payload", 0,
		},
		{
			"hmac sha512 with time stamp", hm("sha512", "hex", "X-Time"), "k3y",
			map[string]string{
				"X-Time": "1700000000",
				"X-Signature": "sig=22eb5e16e71801e4acd7c52c9bf69227f80f6843aac790141df0a345be7fa2f8" +
					"d73f1a2acac1da73faefd4b0394d3ae97dafb043ae8162ed498044460bd1da50",
			},
			"X-Signature", "payload", 1700000000,
		},
	}
}

func (v vector) scheme(secrets ...string) scheme {
	o := v.o
	o.Tolerance = 5 * time.Minute
	o.Secret = component.NewSecret(secrets[0])
	if len(secrets) > 1 {
		o.Secondary = component.NewSecret(secrets[1])
	}
	return newScheme(o)
}

func (v vector) head() http.Header {
	h := http.Header{}
	for name, value := range v.header {
		h.Set(name, value)
	}
	return h
}

func (v vector) now() time.Time { return time.Unix(v.at, 0) }

func TestSchemeGenuine(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := v.scheme(v.secret)
			if err := s.verify(v.head(), []byte(v.body), v.now()); err != nil {
				t.Fatalf("the vector: %v", err)
			}
			other := strings.Repeat("AAAA", 8)
			if strings.HasPrefix(v.secret, "whsec_") {
				other = "whsec_" + other
			}
			if err := v.scheme(other, v.secret).verify(v.head(), []byte(v.body), v.now()); err != nil {
				t.Errorf("signed with the second secret: %v", err)
			}
			if err := v.scheme(v.secret, other).verify(v.head(), []byte(v.body), v.now()); err != nil {
				t.Errorf("signed with the first secret: %v", err)
			}
			if err := v.scheme(other).verify(v.head(), []byte(v.body), v.now()); err == nil {
				t.Error("signed with another secret: taken")
			}
		})
	}
}

func TestSchemeForged(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := v.scheme(v.secret)
			refused := func(what string, h http.Header, body string, now time.Time) {
				t.Helper()
				if err := s.verify(h, []byte(body), now); err == nil {
					t.Errorf("%s: taken", what)
				}
			}
			good := v.head().Get(v.signed)
			for n := range len(good) {
				h := v.head()
				h.Set(v.signed, good[:n])
				refused("truncated to "+strconv.Itoa(n), h, v.body, v.now())
			}
			for what, text := range map[string]string{
				"other case":      swapCase(good),
				"long":            good + "00",
				"not ASCII":       good + "\xff\xfe",
				"other algorithm": strings.Replace(strings.Replace(good, "sha256=", "sha1=", 1), "v1", "v9", 1) + "~",
			} {
				if _, hexed := base64.StdEncoding.DecodeString(good); what == "other case" && (hexed != nil || v.o.Signature != generic) {
					continue // hex has no case
				}
				h := v.head()
				h.Set(v.signed, text)
				refused(what, h, v.body, v.now())
			}
			h := v.head()
			h.Del(v.signed)
			refused("missing", h, v.body, v.now())
			if v.body == "" {
				return // tokens do not sign the body
			}
			refused("body with a blank", v.head(), v.body+" ", v.now())
			refused("empty body", v.head(), "", v.now())
		})
	}
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

func TestSchemeTime(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		if v.at == 0 {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := v.scheme(v.secret)
			for _, row := range []struct {
				off  time.Duration
				want error
			}{
				{5 * time.Minute, nil},
				{-5 * time.Minute, nil},
				{5*time.Minute + time.Second, errStale},
				{-5*time.Minute - time.Second, errStale},
				{100 * 365 * 24 * time.Hour, errStale},
			} {
				if err := s.verify(v.head(), []byte(v.body), v.now().Add(row.off)); !errors.Is(err, row.want) {
					t.Errorf("now %v later: %v, want %v", row.off, err, row.want)
				}
			}
			for _, stamp := range []string{"", "-1", "1e9", "+1", " 1", "99999999999999999999", "0x10", "1.5"} {
				h := v.head()
				for name, value := range h {
					h.Set(name, strings.Replace(value[0], strconv.FormatInt(v.at, 10), stamp, 1))
				}
				if err := s.verify(h, []byte(v.body), v.now()); err == nil {
					t.Errorf("time stamp %q: taken", stamp)
				}
			}
		})
	}
}

func TestStandardDetails(t *testing.T) {
	t.Parallel()
	v := vectors()[0]
	good := v.header["webhook-signature"]
	for _, row := range []struct {
		name, id, signature string
		want                error
	}{
		{"one of several", v.header["webhook-id"], "v1,AAAA " + good + " v2,x", nil},
		{"only another version", v.header["webhook-id"], "v1a," + good[3:], errMissing},
		{"no id", "", good, errID},
		{"dot in the id", "msg.1", good, errID},
		{"after the 16th", v.header["webhook-id"], strings.Repeat("v1,AAAA ", maxSignatures) + good, errMismatch},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := v.head()
			h.Set("Webhook-Id", row.id)
			h.Set("Webhook-Signature", row.signature)
			if err := v.scheme(v.secret).verify(h, []byte(v.body), v.now()); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestStripeDetails(t *testing.T) {
	t.Parallel()
	v := vectors()[4]
	sig := "91110bb4292e56d95b06660f55b3f65c0157840684729f1271e6da44c1ed57eb"
	for _, row := range []struct {
		name, header string
		want         error
	}{
		{"several", "t=1492774577,v1=00,v1=" + sig, nil},
		{"blanks", "t=1492774577, v1=" + sig, nil},
		{"only v0", "t=1492774577,v0=" + sig, errMissing},
		{"two times", "t=1492774577,t=1492774578,v1=" + sig, errTimestamp},
		{"no time", "v1=" + sig, errTimestamp},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Stripe-Signature": {row.header}}
			if err := v.scheme(v.secret).verify(h, []byte(v.body), v.now()); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestGitLabIsNotTalkedDown(t *testing.T) {
	t.Parallel()
	o := options{Signature: gitlab, Tolerance: time.Minute, Secret: component.NewSecret("whsec_AAAA")}
	h := http.Header{"X-Gitlab-Token": {"whsec_AAAA"}}
	if err := newScheme(o).verify(h, nil, time.Now()); err == nil {
		t.Error("a signing token sent as a secret token was taken")
	}
	o.Secondary = component.NewSecret("old token")
	s := newScheme(o)
	if err := s.verify(http.Header{"X-Gitlab-Token": {"old token"}}, nil, time.Now()); err != nil {
		t.Errorf("the old token during a change: %v", err)
	}
	signed := http.Header{}
	s.sign(signed, "1", []byte("x"), time.Now())
	if err := s.verify(signed, []byte("x"), time.Now()); err != nil {
		t.Errorf("the new token during a change: %v", err)
	}
	for _, token := range []string{"", "wrong", "old toke", "old token "} {
		if err := s.verify(http.Header{"X-Gitlab-Token": {token}}, nil, time.Now()); err == nil {
			t.Errorf("token %q: taken", token)
		}
	}
}

func TestSignRoundTrip(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			v.scheme(v.secret).sign(h, "id1", []byte("body"), now)
			if err := v.scheme(v.secret).verify(h, []byte("body"), now); err != nil {
				t.Errorf("own signature: %v", err)
			}
		})
	}
}

// FuzzVerify checks that no header makes a verifier panic, and that nothing
// but the genuine signature of the body is taken.
func FuzzVerify(f *testing.F) {
	all := vectors()
	for i, v := range all {
		f.Add(i, v.head().Get(v.signed), v.header["webhook-id"], strconv.FormatInt(v.at, 10), []byte(v.body))
	}
	f.Fuzz(func(t *testing.T, n int, signature, id, stamp string, body []byte) {
		v := all[uint(n)%uint(len(all))]
		s := v.scheme(v.secret, v.secret)
		h := v.head()
		h.Set(v.signed, signature)
		for _, name := range []string{"Webhook-Id", "Svix-Id"} {
			h.Set(name, id)
		}
		for _, name := range []string{"Webhook-Timestamp", "Svix-Timestamp", "X-Slack-Request-Timestamp", "X-Time"} {
			h.Set(name, stamp)
		}
		if err := s.verify(h, body, v.now()); err != nil {
			return
		}
		if v.body == "" {
			return // a token
		}
		// What was taken must be what signing gives for these words.
		if string(body) != v.body {
			t.Fatalf("%s: took a signature of another body", v.name)
		}
	})
}
