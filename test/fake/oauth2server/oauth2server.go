// Package oauth2server is a server for tests that gives tokens as RFC 6749 says:
// for codes, with the proof of RFC 7636, and for client credentials. It was
// written from the two documents, not from a client.
//
// A test starts one with [Start] and sends a browser to its /authorize, where
// everybody consents, and a client to its /token.
//
// It promises to be strict: every parameter is checked, a client authenticates in
// exactly one way, a code counts once and for a minute, and presenting it again
// takes back the token that it was given for.
package oauth2server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The one client that the server knows.
const (
	ClientID = "shop & co"
	Secret   = "canary-of-the-client-secret/+="
	Redirect = "https://shop.example/login/done"
)

// Server is a running server.
type Server struct {
	*httptest.Server

	mu     sync.Mutex // guards what follows
	life   int        // seconds; 0: the answer does not say
	odd    http.HandlerFunc
	only   string // the way in which a client authenticates: basic, body or any
	codes  map[string]*code
	tokens map[string]url.Values // of the request for it
	asked  int
}

type code struct {
	challenge, redirect string
	made                time.Time
	token               string // that it was given for
	used                bool
}

// Start runs a server until the test ends.
func Start(t *testing.T) *Server {
	s := &Server{life: 3600, codes: map[string]*code{}, tokens: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", s.authorize)
	mux.HandleFunc("POST /token", s.token)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// Live sets how many seconds tokens count that are given from now on; 0: the
// answer does not say.
func (s *Server) Live(seconds int) { s.set(func() { s.life = seconds }) }

// Odd lets h answer for tokens; nil: the server does.
func (s *Server) Odd(h http.HandlerFunc) { s.set(func() { s.odd = h }) }

// Only sets the way in which a client authenticates: "basic", "body" or "" for
// both.
func (s *Server) Only(way string) { s.set(func() { s.only = way }) }

// Asked returns how often tokens were asked for.
func (s *Server) Asked() (n int) {
	s.set(func() { n = s.asked })
	return n
}

// Request returns what a token was asked for with; nil: it does not count.
func (s *Server) Request(token string) (v url.Values) {
	s.set(func() { v = s.tokens[token] })
	return v
}

func (s *Server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for name, values := range q {
		if len(values) != 1 {
			http.Error(w, name+" is there twice", http.StatusBadRequest)
			return
		}
	}
	redirect := q.Get("redirect_uri")
	if q.Get("client_id") != ClientID || redirect != "" && redirect != Redirect {
		http.Error(w, "unknown client or redirect_uri", http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}}
	if q.Get("response_type") != "code" || q.Get("state") == "" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 {
		back.Set("error", "invalid_request")
	} else {
		text := "canary-code-" + rand.Text()
		s.set(func() {
			s.codes[text] = &code{challenge: q.Get("code_challenge"), redirect: redirect, made: time.Now()}
		})
		back.Set("code", text)
	}
	http.Redirect(w, r, Redirect+"?"+back.Encode(), http.StatusFound)
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	odd := s.odd
	s.mu.Unlock()
	if odd != nil {
		odd(w, r)
		return
	}
	status, answer := s.give(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

type answer map[string]any

func fails(status int, code string) (int, answer) {
	return status, answer{"error": code, "error_description": "canary of what the server says"}
}

func (s *Server) give(r *http.Request) (int, answer) {
	if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" || r.ParseForm() != nil {
		return fails(http.StatusBadRequest, "invalid_request")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.authenticated(r) {
		return fails(http.StatusUnauthorized, "invalid_client")
	}
	text := "canary-token-" + rand.Text()
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		if !s.redeem(r.PostForm, text) {
			return fails(http.StatusBadRequest, "invalid_grant")
		}
	case "client_credentials":
		if strings.Contains(r.PostForm.Get("scope"), "forbidden") {
			return fails(http.StatusBadRequest, "invalid_scope")
		}
	default:
		return fails(http.StatusBadRequest, "unsupported_grant_type")
	}
	s.tokens[text] = r.PostForm
	a := answer{"access_token": text, "token_type": "bearer"}
	if s.life != 0 {
		a["expires_in"] = s.life
	}
	return http.StatusOK, a
}

// authenticated tells whether the client is the one that is known; the caller
// holds mu.
func (s *Server) authenticated(r *http.Request) bool {
	id, secret, basic := r.BasicAuth()
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	body := r.PostForm.Has("client_secret")
	if basic == body || errID != nil || errSecret != nil || basic && s.only == "body" || body && s.only == "basic" {
		return false
	}
	if body {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	return id == ClientID && secret == Secret
}

// redeem takes a code for a token; the caller holds mu.
func (s *Server) redeem(form url.Values, token string) bool {
	c := s.codes[form.Get("code")]
	if c == nil || time.Since(c.made) > time.Minute {
		return false
	}
	if c.used {
		delete(s.tokens, c.token)
		return false
	}
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != c.challenge || form.Get("redirect_uri") != c.redirect {
		return false
	}
	c.used, c.token = true, token
	return true
}
