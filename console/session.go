package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// SessionLife is how long a session lasts after it was used.
	SessionLife = 12 * time.Hour

	sessionPath = "/session"
	// keyHeader has the key of the session. No other page can send it, nor can
	// one read it here.
	keyHeader = "Penstock-Console"
	// maxSignIn bounds the body of a sign-in, in bytes.
	maxSignIn = 4 << 10
)

// seal makes and recognises sessions. A session is when it ends, something
// random and a signature; whoever has the token could make one, and nobody else.
// So it outlives a start of Penstock with the same token.
type seal struct{ key []byte }

func newSeal(token string) seal { return seal{mac([]byte(token), "penstock console")} }

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

const (
	timeBytes    = 8
	payloadBytes = timeBytes + 16
)

// issue returns the value of a new session's cookie.
func (s seal) issue(now time.Time) string {
	payload := make([]byte, payloadBytes)
	_, _ = rand.Read(payload[timeBytes:]) // it never fails
	binary.BigEndian.PutUint64(payload, uint64(now.Add(SessionLife).Unix()))
	return base64.RawURLEncoding.EncodeToString(append(payload, mac(s.key, "cookie", string(payload))...))
}

// left returns how long a session still lasts; zero or less when it is none.
func (s seal) left(cookie string, now time.Time) time.Duration {
	raw, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(raw) != payloadBytes+sha256.Size {
		return 0
	}
	payload := raw[:payloadBytes]
	if !hmac.Equal(raw[payloadBytes:], mac(s.key, "cookie", string(payload))) {
		return 0
	}
	end := time.Unix(int64(binary.BigEndian.Uint64(payload)), 0)
	return min(end.Sub(now), SessionLife)
}

// keyOf returns the key that belongs to a session's cookie.
func (s seal) keyOf(cookie string) string {
	return base64.RawURLEncoding.EncodeToString(mac(s.key, "key", cookie))
}

// fits tells whether the token is the one that the seal is made of.
func (s seal) fits(token string) bool {
	return subtle.ConstantTimeCompare(s.key, newSeal(token).key) == 1
}

// cookieName has the port in it: browsers send the cookies of one port to all
// ports of a host, and there may be a console on several.
func cookieName(r *http.Request) string {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		return "penstock-console"
	}
	return "penstock-console-" + port
}

// signedIn answers a request without a session, and tells whether there is one.
func (c *console) signedIn(w http.ResponseWriter, r *http.Request) bool {
	cookies := r.CookiesNamed(cookieName(r))
	if len(cookies) != 1 || c.seal.left(cookies[0].Value, time.Now()) <= 0 {
		refuse(w, http.StatusUnauthorized, "not signed in; penstock console prints the address to open")
		return false
	}
	keys := r.Header[keyHeader]
	if len(keys) != 1 || subtle.ConstantTimeCompare([]byte(keys[0]), []byte(c.seal.keyOf(cookies[0].Value))) != 1 {
		refuse(w, http.StatusForbidden, "the session's key is missing or wrong; penstock console prints the address to open")
		return false
	}
	return true
}

// session signs in and out, and tells about the instance.
func (c *console) session(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		c.signIn(w, r)
	case http.MethodGet:
		if !c.signedIn(w, r) {
			return
		}
		cookie := r.CookiesNamed(cookieName(r))[0].Value
		if c.seal.left(cookie, time.Now()) < SessionLife/2 {
			c.open(w, r)
			return
		}
		told := c.about
		told.Key = c.seal.keyOf(cookie)
		answer(w, http.StatusOK, told)
	case http.MethodDelete:
		if c.signedIn(w, r) {
			setCookie(w, r, "", -1)
			w.WriteHeader(http.StatusNoContent)
		}
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		refuse(w, http.StatusMethodNotAllowed, "use GET, POST or DELETE")
	}
}

// signIn takes the token in exchange for a session. The type of the body is one
// that a form of another page cannot send.
func (c *console) signIn(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "send application/json")
		return
	}
	var in struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn)).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, `send {"token": "..."}`)
		return
	}
	if !c.seal.fits(in.Token) {
		c.log.Debug("Console: sign-in with a wrong token", "from", r.RemoteAddr)
		refuse(w, http.StatusUnauthorized, "the token is wrong; penstock console prints the address to open")
		return
	}
	c.open(w, r)
}

// open begins a session.
func (c *console) open(w http.ResponseWriter, r *http.Request) {
	cookie := c.seal.issue(time.Now())
	setCookie(w, r, cookie, int(SessionLife/time.Second))
	told := c.about
	told.Key = c.seal.keyOf(cookie)
	answer(w, http.StatusOK, told)
}

func setCookie(w http.ResponseWriter, r *http.Request, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: seconds, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
}
