// Package kubernetes is a server for tests that speaks as much of the Kubernetes
// API as a secret store needs: reading and listing Secret objects, in pages,
// with bearer tokens that may read some namespaces. It was written from the
// API's documentation.
//
// A test starts one with [Start] and fills it through its methods.
//
// It promises to answer as an API server does: errors are Status objects.
package kubernetes

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Server is a running server, over TLS.
type Server struct {
	*httptest.Server

	mu      sync.Mutex // guards what follows
	objects map[string]map[string][]byte
	tokens  map[string][]string
}

// Start starts a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{objects: map[string]map[string][]byte{}, tokens: map[string][]string{}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// CA returns the certificate of the server, in PEM.
func (s *Server) CA() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// Put makes an object or replaces it.
func (s *Server) Put(namespace, name string, data map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	object := map[string][]byte{}
	for k, v := range data {
		object[k] = []byte(v)
	}
	s.objects[namespace+"/"+name] = object
}

// Allow lets a token read namespaces; without any it is known, and may read
// nothing.
func (s *Server) Allow(token string, namespaces ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = namespaces
}

// Forget takes a token back.
func (s *Server) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	namespaces, known := s.tokens[token]
	if !known {
		refuse(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	if r.URL.Path == "/version" {
		reply(w, map[string]string{"major": "1", "minor": "34"})
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/")
	namespace, rest, _ := strings.Cut(path, "/")
	name, one := strings.CutPrefix(rest, "secrets/")
	switch {
	case !ok || !one && rest != "secrets":
		refuse(w, http.StatusNotFound, "the server could not find the requested resource")
	case !slices.Contains(namespaces, namespace):
		refuse(w, http.StatusForbidden, fmt.Sprintf("secrets %q is forbidden: cannot get resource \"secrets\" in the namespace %q", name, namespace))
	case one:
		data, ok := s.objects[namespace+"/"+name]
		if !ok {
			refuse(w, http.StatusNotFound, fmt.Sprintf("secrets %q not found", name))
			return
		}
		reply(w, object(name, data))
	default:
		s.list(w, r, namespace)
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, namespace string) {
	var names []string
	for key := range s.objects {
		if name, ok := strings.CutPrefix(key, namespace+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	items, more := []any{}, ""
	for i := from; i < len(names); i++ {
		if limit > 0 && len(items) == limit {
			more = strconv.Itoa(i)
			break
		}
		items = append(items, object(names[i], s.objects[namespace+"/"+names[i]]))
	}
	reply(w, map[string]any{"kind": "SecretList", "metadata": map[string]any{"continue": more}, "items": items})
}

func object(name string, data map[string][]byte) any {
	return map[string]any{"kind": "Secret", "metadata": map[string]any{"name": name}, "data": data, "type": "Opaque"}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	reply(w, map[string]any{"kind": "Status", "status": "Failure", "message": message, "code": status})
}

func reply(w http.ResponseWriter, body any) {
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
