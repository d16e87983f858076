// Package vault is a server for tests that speaks as much of Vault's HTTP API as
// a secret store needs: the key/value engine, version 2, with versions and soft
// deletion, tokens with a time and policies, and logins by AppRole and by
// Kubernetes. It was written from the API's documentation, not from a client.
//
// A test starts one with [Start] and fills it through its methods.
//
// It promises to answer as Vault does: the same status codes and the same form
// of bodies, errors among them.
package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Root is the token that may do everything and does not end.
const Root = "hvs.root"

// Server is a running server.
type Server struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	secrets  map[string][]version
	tokens   map[string]*token
	roles    map[string]role
	sealed   bool
	count    int
	logins   int
	renewals int
}

type version struct {
	data    json.RawMessage
	deleted bool
}

type token struct {
	ends      time.Time // zero: never
	max       time.Time // zero: none
	ttl       time.Duration
	renewable bool
	paths     []string // prefixes of what it may read
}

// role is what a login gives.
type role struct {
	mount, name, proof string
	ttl, max           time.Duration
}

// Start starts a server until the test ends, over TLS when a test needs it.
func Start(t testing.TB, tls bool) *Server {
	t.Helper()
	s := &Server{secrets: map[string][]version{}, tokens: map[string]*token{Root: {paths: []string{""}}}, roles: map[string]role{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if tls {
		s.StartTLS()
	} else {
		s.Server.Start()
	}
	t.Cleanup(s.Server.Close)
	return s
}

// Put writes a new version of a secret: Put("secret", "dapr/db", `{"user":"u"}`).
func (s *Server) Put(engine, path, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := engine + "|" + path
	s.secrets[key] = append(s.secrets[key], version{data: json.RawMessage(data)})
}

// Delete deletes the newest version of a secret, which can be undone in Vault.
func (s *Server) Delete(engine, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.secrets[engine+"|"+path]
	versions[len(versions)-1].deleted = true
}

// Token makes a token that may read what begins with one of the paths, such as
// "secret/data/dapr/". A time of zero is for ever.
func (s *Server) Token(ttl, most time.Duration, renewable bool, paths ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token(ttl, most, renewable, paths)
}

func (s *Server) token(ttl, most time.Duration, renewable bool, paths []string) string {
	s.count++
	name := fmt.Sprintf("hvs.token-%d", s.count)
	tok := &token{ttl: ttl, renewable: renewable, paths: paths}
	if ttl > 0 {
		tok.ends = time.Now().Add(ttl)
	}
	if most > 0 {
		tok.max = time.Now().Add(most)
	}
	s.tokens[name] = tok
	return name
}

// Role makes a role that logs in at a mount: for AppRole by its id and a secret,
// for Kubernetes by its name and a JWT.
func (s *Server) Role(mount, name, proof string, ttl, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[mount+"|"+name] = role{mount, name, proof, ttl, most}
}

// Revoke takes every token back but the root's.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = map[string]*token{Root: s.tokens[Root]}
}

// Seal seals the server, or unseals it.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// Logins returns how many logins succeeded.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Renewals returns how many renewals succeeded.
func (s *Server) Renewals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	switch {
	case s.sealed:
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		return
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		s.login(w, r, strings.TrimSuffix(strings.TrimPrefix(path, "auth/"), "/login"))
		return
	}
	tok := s.tokens[r.Header.Get("X-Vault-Token")]
	if tok == nil || !tok.ends.IsZero() && time.Now().After(tok.ends) {
		refuse(w, http.StatusForbidden, "permission denied", "invalid token")
		return
	}
	switch {
	case path == "auth/token/lookup-self" && r.Method == http.MethodGet:
		left := 0
		if !tok.ends.IsZero() {
			left = int(time.Until(tok.ends).Seconds()) + 1
		}
		reply(w, map[string]any{"data": map[string]any{"ttl": left, "renewable": tok.renewable}})
	case path == "auth/token/renew-self" && r.Method == http.MethodPost:
		s.renew(w, r.Header.Get("X-Vault-Token"), tok)
	default:
		s.kv(w, r, tok, path)
	}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request, mount string) {
	var body struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
		Role     string `json:"role"`
		JWT      string `json:"jwt"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost {
		refuse(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	ro, ok := s.roles[mount+"|"+body.RoleID+body.Role]
	switch {
	case !ok && body.Role != "":
		refuse(w, http.StatusBadRequest, fmt.Sprintf("invalid role name %q", body.Role))
	case !ok || body.Role == "" && ro.proof != body.SecretID:
		refuse(w, http.StatusBadRequest, "invalid role or secret ID")
	case body.Role != "" && ro.proof != body.JWT:
		refuse(w, http.StatusForbidden, "permission denied")
	default:
		s.logins++
		name := s.token(ro.ttl, ro.max, true, []string{""})
		reply(w, map[string]any{"auth": map[string]any{"client_token": name, "lease_duration": int(ro.ttl.Seconds()), "renewable": true}})
	}
}

func (s *Server) renew(w http.ResponseWriter, name string, tok *token) {
	if !tok.renewable {
		refuse(w, http.StatusBadRequest, "lease is not renewable")
		return
	}
	s.renewals++
	tok.ends = time.Now().Add(tok.ttl)
	if !tok.max.IsZero() && tok.ends.After(tok.max) {
		tok.ends = tok.max
	}
	left := int(time.Until(tok.ends).Round(time.Second).Seconds())
	reply(w, map[string]any{"auth": map[string]any{"client_token": name, "lease_duration": left, "renewable": true}})
}

func (s *Server) kv(w http.ResponseWriter, r *http.Request, tok *token, path string) {
	if !slices.ContainsFunc(tok.paths, func(p string) bool { return strings.HasPrefix(path, p) }) {
		refuse(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	if engine, name, ok := strings.Cut(path, "/data/"); ok && s.mounted(engine) {
		s.read(w, r, engine+"|"+name)
		return
	}
	engine, folder, ok := strings.Cut(path+"/", "/metadata/")
	if !ok || !s.mounted(engine) || r.URL.Query().Get("list") != "true" {
		refuse(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", path))
		return
	}
	var keys []string
	for key := range s.secrets {
		rest, ok := strings.CutPrefix(key, engine+"|"+strings.TrimLeft(folder, "/"))
		if !ok {
			continue
		}
		if first, _, deeper := strings.Cut(rest, "/"); deeper {
			rest = first + "/"
		}
		if !slices.Contains(keys, rest) {
			keys = append(keys, rest)
		}
	}
	if len(keys) == 0 {
		refuse(w, http.StatusNotFound)
		return
	}
	slices.Sort(keys)
	reply(w, map[string]any{"data": map[string]any{"keys": keys}})
}

func (s *Server) mounted(engine string) bool {
	for key := range s.secrets {
		if strings.HasPrefix(key, engine+"|") {
			return true
		}
	}
	return false
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, key string) {
	versions := s.secrets[key]
	n := len(versions)
	if q := r.URL.Query().Get("version"); q != "" && q != "0" {
		n, _ = strconv.Atoi(q)
	}
	if n < 1 || n > len(versions) {
		refuse(w, http.StatusNotFound)
		return
	}
	v := versions[n-1]
	body := map[string]any{"data": map[string]any{"data": v.data, "metadata": map[string]any{"version": n}}}
	if v.deleted {
		body = map[string]any{"data": map[string]any{"data": nil, "metadata": map[string]any{"version": n, "deletion_time": "2026-01-01T00:00:00Z"}}}
		w.WriteHeader(http.StatusNotFound)
	}
	reply(w, body)
}

func refuse(w http.ResponseWriter, status int, errs ...string) {
	w.WriteHeader(status)
	reply(w, map[string]any{"errors": append([]string{}, errs...)})
}

func reply(w http.ResponseWriter, body any) {
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
