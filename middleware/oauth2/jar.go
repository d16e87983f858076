package oauth2

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxToken  = 8000 // bytes of the header
	maxPiece  = 3600 // bytes in a cookie, so that it stays below 4 KB with its name and attributes
	maxPieces = 3
	stamp     = 8 // bytes of a time
)

// jar makes and reads the cookies of one middleware. Each is sealed for its
// purpose, and for the client and the server that the middleware is of.
type jar struct {
	name   string
	secure bool
	owner  string
	seal   cipher.AEAD // puts a nonce of its own in front
	proofs []byte      // key of the proofs
}

// login is one that is under way.
type login struct {
	state  string // what the server returns
	proof  string // what the code is worthless without
	target string // where it ends
}

func newJar(key, name string, secure bool, owner string) (*jar, error) {
	seal, err := hkdf.Key(sha256.New, []byte(key), nil, "penstock oauth2 cookies", 32)
	if err != nil {
		return nil, err
	}
	proofs, err := hkdf.Key(sha256.New, []byte(key), nil, "penstock oauth2 proofs", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(seal)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	if secure {
		name = "__Host-" + name // no other host can set it
	}
	return &jar{name, secure, owner, aead, proofs}, nil
}

// close seals a text until a time, for a purpose.
func (j *jar) close(purpose, text string, until time.Time) string {
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, stamp+len(text)), uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(j.seal.Seal(nil, nil, append(plain, text...), []byte(purpose+"\x00"+j.owner)))
}

// open returns what was sealed, if it was here, for that purpose, and its time
// has not come.
func (j *jar) open(purpose, sealed string) (string, bool) {
	data, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return "", false
	}
	plain, err := j.seal.Open(nil, nil, data, []byte(purpose+"\x00"+j.owner))
	if err != nil || len(plain) < stamp || time.Now().Unix() >= int64(binary.BigEndian.Uint64(plain)) {
		return "", false
	}
	return string(plain[stamp:]), true
}

// begin starts a login. The browser is known by a cookie of chance, the same for
// all that it begins at one time; the state holds the rest and opens only
// together with it.
func (j *jar) begin(w http.ResponseWriter, r *http.Request, target string) (login, error) {
	browser, ok := j.browser(r)
	if !ok {
		browser = rand.Text()
	}
	l := login{state: j.close("login\x00"+browser, target, time.Now().Add(loginTime)), target: target}
	l.proof = j.proof(browser, l.state)
	return l, j.set(w, j.name+"_login", browser, loginTime)
}

// login returns the login of a state, if the browser has begun it.
func (j *jar) login(r *http.Request, state string) (login, bool) {
	browser, ok := j.browser(r)
	if !ok {
		return login{}, false
	}
	target, ok := j.open("login\x00"+browser, state)
	return login{state, j.proof(browser, state), target}, ok
}

// browser is what the browser is known by.
func (j *jar) browser(r *http.Request) (string, bool) {
	c, err := r.Cookie(j.name + "_login")
	if err != nil || len(c.Value) != 26 || strings.Trim(c.Value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return "", false
	}
	return c.Value, true
}

// proof is the verifier of RFC 7636.
func (j *jar) proof(browser, state string) string {
	m := hmac.New(sha256.New, j.proofs)
	m.Write([]byte(browser + "\x00" + state))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// keep sets the cookies of a session. The first begins with the number of them.
func (j *jar) keep(w http.ResponseWriter, g client.Grant) error {
	if len(g.Header) > maxToken {
		return fault.New(fault.Unavailable, "keep token: it has %d bytes, %d fit into cookies", len(g.Header), maxToken)
	}
	lasts := sessionTime
	if !g.Ends.IsZero() {
		lasts = min(lasts, time.Until(g.Ends))
	}
	sealed := j.close("session", g.Header, time.Now().Add(lasts))
	count := (len(sealed) + maxPiece - 1) / maxPiece
	for i := range count {
		piece := sealed[i*maxPiece : min(len(sealed), (i+1)*maxPiece)]
		if i == 0 {
			piece = strconv.Itoa(count) + "." + piece
		}
		if err := j.set(w, j.piece(i), piece, lasts); err != nil {
			return err
		}
	}
	return nil
}

// session returns the header of a session.
func (j *jar) session(r *http.Request) (string, bool) {
	first, err := r.Cookie(j.name)
	if err != nil {
		return "", false
	}
	number, sealed, found := strings.Cut(first.Value, ".")
	count, err := strconv.Atoi(number)
	if !found || err != nil || count < 1 || count > maxPieces {
		return "", false
	}
	for i := 1; i < count; i++ {
		c, err := r.Cookie(j.piece(i))
		if err != nil {
			return "", false
		}
		sealed += c.Value
	}
	return j.open("session", sealed)
}

// drop takes the cookies of a session back.
func (j *jar) drop(w http.ResponseWriter) {
	for i := range maxPieces {
		http.SetCookie(w, &http.Cookie{Name: j.piece(i), Path: "/", MaxAge: -1, HttpOnly: true, Secure: j.secure, SameSite: http.SameSiteLaxMode})
	}
}

// piece is the name of one of the cookies of a session.
func (j *jar) piece(i int) string {
	if i == 0 {
		return j.name
	}
	return j.name + "_" + strconv.Itoa(i)
}

func (j *jar) set(w http.ResponseWriter, name, value string, lasts time.Duration) error {
	c := &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: max(1, int(lasts/time.Second)),
		HttpOnly: true, Secure: j.secure, SameSite: http.SameSiteLaxMode,
	}
	if err := c.Valid(); err != nil {
		return fault.New(fault.Internal, "set cookie: %w", err)
	}
	http.SetCookie(w, c)
	return nil
}

// strip takes our cookies out of a header and leaves the others as they are.
func (j *jar) strip(h http.Header) {
	var kept []string
	for _, line := range h["Cookie"] {
		var rest []string
		for part := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(strings.TrimSpace(part), "="); !j.ours(name) {
				rest = append(rest, part)
			}
		}
		if len(rest) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(rest, ";")))
		}
	}
	if delete(h, "Cookie"); len(kept) > 0 {
		h["Cookie"] = kept
	}
}

func (j *jar) ours(name string) bool {
	if name == j.name+"_login" {
		return true
	}
	for i := range maxPieces {
		if name == j.piece(i) {
			return true
		}
	}
	return false
}
