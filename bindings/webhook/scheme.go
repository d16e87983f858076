package webhook

import (
	"crypto/hmac"
	"crypto/sha1" //  a legacy algorithm that some providers still sign with
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Why a request is refused. The sender gets no reason; it is for the log.
var (
	errMissing   = errors.New("signature header missing or malformed")
	errTimestamp = errors.New("time stamp missing or malformed")
	errStale     = errors.New("time stamp outside the tolerance")
	errID        = errors.New("delivery id missing or malformed")
	errMismatch  = errors.New("no signature matches")
)

// maxSignatures is how many signatures of one request are looked at.
const maxSignatures = 16

// scheme is a way to sign requests. verify works on the raw bytes and returns
// the reason why the request is not genuine; sign adds the headers.
type scheme interface {
	verify(h http.Header, body []byte, now time.Time) error
	sign(h http.Header, id string, body []byte, now time.Time)
}

// claim is what the headers of a request say about its signature.
type claim struct {
	id, timestamp string
	signatures    []string // still encoded
}

// mac is every scheme that is an HMAC over a few words and the body.
type mac struct {
	keys      [][]byte
	hash      func() hash.Hash
	decode    func(string) ([]byte, error)
	encode    func([]byte) string
	read      func(http.Header) (claim, error)
	write     func(http.Header, claim)
	prefix    func(claim) string // what is signed before the body
	tolerance time.Duration      // zero when no time stamp is signed
}

// newScheme returns the scheme of the options, nil for none. The options have
// been checked.
func newScheme(o options) scheme {
	secrets := []string{o.Secret.Reveal()}
	if s := o.Secondary.Reveal(); s != "" {
		secrets = append(secrets, s)
	}
	switch o.preset() {
	case standard:
		return standardScheme(secrets, o.Tolerance)
	case github:
		return single(secrets, sha256.New, "X-Hub-Signature-256", "sha256=", false)
	case gitlab:
		return gitlabScheme(secrets, o.Tolerance)
	case stripe:
		return stripeScheme(secrets, o.Tolerance)
	case slack:
		s := single(secrets, sha256.New, "X-Slack-Signature", "v0=", false)
		s.timed("X-Slack-Request-Timestamp", o.Tolerance, func(c claim) string { return "v0:" + c.timestamp + ":" })
		return s
	case shopify:
		return single(secrets, sha256.New, "X-Shopify-Hmac-Sha256", "", true)
	case bearer:
		return token{header: "Authorization", prefix: "Bearer ", keys: secrets}
	case generic:
		sums := map[string]func() hash.Hash{"sha256": sha256.New, "sha1": sha1.New, "sha512": sha512.New}
		s := single(secrets, sums[o.Algorithm], o.SigHeader, o.SigPrefix, o.SigEncoding == "base64")
		if o.TimeHeader != "" {
			s.timed(o.TimeHeader, o.Tolerance, func(c claim) string { return c.timestamp + "." })
		}
		return s
	}
	return nil
}

func (m *mac) verify(h http.Header, body []byte, now time.Time) error {
	c, err := m.read(h)
	if err != nil {
		return err
	}
	if m.tolerance > 0 {
		if err := checkTime(c.timestamp, now, m.tolerance); err != nil {
			return err
		}
	}
	given := make([][]byte, 0, 2)
	for _, s := range c.signatures[:min(len(c.signatures), maxSignatures)] {
		if b, err := m.decode(s); err == nil {
			given = append(given, b)
		}
	}
	// Every pair is compared, so that the time taken does not tell which key or
	// which signature was the right one.
	match := 0
	for _, key := range m.keys {
		want := m.sum(key, c, body)
		for _, g := range given {
			match |= subtle.ConstantTimeCompare(g, want)
		}
	}
	if match != 1 {
		return errMismatch
	}
	return nil
}

func (m *mac) sign(h http.Header, id string, body []byte, now time.Time) {
	c := claim{id: id, timestamp: strconv.FormatInt(now.Unix(), 10)}
	for _, key := range m.keys {
		c.signatures = append(c.signatures, m.encode(m.sum(key, c, body)))
	}
	m.write(h, c)
}

func (m *mac) sum(key []byte, c claim, body []byte) []byte {
	sum := hmac.New(m.hash, key)
	sum.Write([]byte(m.prefix(c)))
	sum.Write(body)
	return sum.Sum(nil)
}

// checkTime tells whether text, in Unix seconds, is within tolerance of now.
func checkTime(text string, now time.Time, tolerance time.Duration) error {
	if text == "" || len(text) > 12 || strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) {
		return errTimestamp
	}
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return errTimestamp
	}
	if diff := now.Unix() - sec; max(diff, -diff) > int64(tolerance/time.Second) {
		return errStale
	}
	return nil
}

// single is a signature over the body in a header of its own.
func single(secrets []string, sum func() hash.Hash, header, prefix string, inBase64 bool) *mac {
	m := &mac{
		hash: sum, decode: hex.DecodeString, encode: hex.EncodeToString,
		read: func(h http.Header) (claim, error) {
			text, ok := strings.CutPrefix(h.Get(header), prefix)
			if !ok || text == "" {
				return claim{}, errMissing
			}
			return claim{signatures: []string{text}}, nil
		},
		write:  func(h http.Header, c claim) { h.Set(header, prefix+c.signatures[0]) },
		prefix: func(claim) string { return "" },
	}
	if inBase64 {
		m.decode, m.encode = base64.StdEncoding.DecodeString, base64.StdEncoding.EncodeToString
	}
	for _, s := range secrets {
		m.keys = append(m.keys, []byte(s))
	}
	return m
}

// timed adds a signed time stamp in a header of its own.
func (m *mac) timed(header string, tolerance time.Duration, prefix func(claim) string) {
	read, write := m.read, m.write
	m.tolerance, m.prefix = tolerance, prefix
	m.read = func(h http.Header) (claim, error) {
		c, err := read(h)
		c.timestamp = h.Get(header)
		return c, err
	}
	m.write = func(h http.Header, c claim) {
		write(h, c)
		h.Set(header, c.timestamp)
	}
}

// standardScheme is the one of standardwebhooks.com: id, time stamp and body
// are signed. Secrets that cannot be read have been refused by Check.
func standardScheme(secrets []string, tolerance time.Duration) *mac {
	m := &mac{
		hash: sha256.New, decode: base64.StdEncoding.DecodeString, encode: base64.StdEncoding.EncodeToString,
		read: readStandard, tolerance: tolerance,
		write: func(h http.Header, c claim) {
			h.Set("Webhook-Id", c.id)
			h.Set("Webhook-Timestamp", c.timestamp)
			h.Set("Webhook-Signature", "v1,"+strings.Join(c.signatures, " v1,"))
		},
		prefix: func(c claim) string { return c.id + "." + c.timestamp + "." },
	}
	for _, s := range secrets {
		if key, err := standardKey(s); err == nil {
			m.keys = append(m.keys, key)
		}
	}
	return m
}

func readStandard(h http.Header) (claim, error) {
	prefix := "Webhook-"
	if h.Get("Webhook-Signature") == "" && h.Get("Svix-Signature") != "" {
		prefix = "Svix-" // the names before the scheme became a standard
	}
	c := claim{id: h.Get(prefix + "Id"), timestamp: h.Get(prefix + "Timestamp")}
	for text := range strings.SplitSeq(h.Get(prefix+"Signature"), " ") {
		if sig, ok := strings.CutPrefix(text, "v1,"); ok && len(c.signatures) < maxSignatures {
			c.signatures = append(c.signatures, sig)
		}
	}
	switch {
	case len(c.signatures) == 0:
		return c, errMissing
	case c.id == "" || strings.Contains(c.id, "."):
		// With a dot in the id, a part of the body could pass as the time stamp.
		return c, errID
	}
	return c, nil
}

func stripeScheme(secrets []string, tolerance time.Duration) *mac {
	m := single(secrets, sha256.New, "Stripe-Signature", "", false)
	m.tolerance = tolerance
	m.prefix = func(c claim) string { return c.timestamp + "." }
	m.read = func(h http.Header) (claim, error) { return readStripe(h.Get("Stripe-Signature")) }
	m.write = func(h http.Header, c claim) {
		h.Set("Stripe-Signature", "t="+c.timestamp+",v1="+strings.Join(c.signatures, ",v1="))
	}
	return m
}

func readStripe(header string) (claim, error) {
	var c claim
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case name == "t" && c.timestamp != "" && c.timestamp != value:
			return c, errTimestamp
		case name == "t":
			c.timestamp = value
		case name == "v1" && len(c.signatures) < maxSignatures:
			c.signatures = append(c.signatures, value)
		}
	}
	if len(c.signatures) == 0 {
		return c, errMissing
	}
	return c, nil
}

// token is a shared secret sent along.
type token struct {
	header, prefix string
	keys           []string
}

func (t token) verify(h http.Header, _ []byte, _ time.Time) error {
	text := h.Get(t.header)
	if len(text) < len(t.prefix) || !strings.EqualFold(text[:len(t.prefix)], t.prefix) {
		return errMissing
	}
	// Digests are compared, so that the time taken does not tell the length.
	given := sha256.Sum256([]byte(text[len(t.prefix):]))
	match := 0
	for _, key := range t.keys {
		want := sha256.Sum256([]byte(key))
		match |= subtle.ConstantTimeCompare(given[:], want[:])
	}
	if match != 1 || text == t.prefix {
		return errMismatch
	}
	return nil
}

func (t token) sign(h http.Header, _ string, _ []byte, _ time.Time) {
	h.Set(t.header, t.prefix+t.keys[0])
}

// eitherScheme is genuine when one of two schemes says so.
type eitherScheme struct{ first, second scheme }

func (e eitherScheme) verify(h http.Header, body []byte, now time.Time) error {
	err := e.first.verify(h, body, now)
	if err == nil {
		return nil
	}
	if other := e.second.verify(h, body, now); !errors.Is(other, errMissing) {
		return other
	}
	return err
}

func (e eitherScheme) sign(h http.Header, id string, body []byte, now time.Time) {
	e.first.sign(h, id, body, now)
}

// gitlabScheme reads a secret that starts with whsec_ as a signing token and
// any other as a secret token, so that who has moved to signing tokens is not
// talked back to the weaker check.
func gitlabScheme(secrets []string, tolerance time.Duration) scheme {
	isSigning := func(s string) bool { return strings.HasPrefix(s, "whsec_") }
	signing := slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return !isSigning(s) })
	plain := slices.DeleteFunc(slices.Clone(secrets), isSigning)
	switch {
	case len(plain) == 0:
		return standardScheme(signing, tolerance)
	case len(signing) == 0:
		return token{header: "X-Gitlab-Token", keys: plain}
	default:
		return eitherScheme{standardScheme(signing, tolerance), token{header: "X-Gitlab-Token", keys: plain}}
	}
}
