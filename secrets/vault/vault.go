// Package vault is the secret store that reads the key/value engine, version 2,
// of HashiCorp Vault and of OpenBao.
//
// Configure it as secretstores.hashicorp.vault with the server's address and a
// token, the file of a token, or a login: AppRole or Kubernetes. A secret "db"
// is read from PREFIX/db of the engine; its pairs are the answer or, with
// vaultValueType text, one JSON text. version_id in the metadata of a request
// asks for a version.
//
// It promises that a login and a token that can be renewed are renewed before
// they end, that a token file is read again before each request, that a key
// names one path below the prefix and nothing else, and that no token or value
// is in an error. Nothing is kept: every Get asks the server.
package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("hashicorp.vault", component.About{
	Summary: "Secrets from the key/value engine, version 2, of HashiCorp Vault or OpenBao",
	Limits:  "A request may take 20 s and an answer 16 MiB. A bulk request reads 10,000 secrets, 8 at a time, 32 folders deep.",
	Scale:   "Every process logs in and reads by itself.",
	Dapr: "Logs in by AppRole and Kubernetes, renews tokens, and reads a token file again. A wrong token ends the start. Values that are no text " +
		"are given as JSON; a key with an empty, . or .. part is refused.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: vault
spec:
  type: secretstores.hashicorp.vault
  version: v1
  metadata:
    - name: vaultAddr
      value: https://vault.example.com:8200
    - name: vaultAuth
      value: approle
    - name: roleID
      value: 1c2d3e4f-orders
    - name: secretIDPath
      value: /run/secrets/vault-secret-id
`,
}, open)

// versionKey is the request's metadata that asks for a version.
const versionKey = "version_id"

// Bounds of a bulk request.
const (
	maxSecrets = 10_000
	maxFolders = 32
	readers    = 8
)

type store struct {
	o       options
	server  *clienthttp.Server
	session *session
}

func open(ctx context.Context, env component.Env, o options) (secrets.Driver, error) {
	o.Engine, o.Prefix = strings.Trim(o.Engine, "/"), strings.Trim(o.Prefix, "/")
	conf, err := o.tls()
	if err != nil {
		return nil, err
	}
	server, err := clienthttp.NewServer(o.Address, clienthttp.Options{TLS: conf, UseProxy: true})
	if err != nil {
		return nil, fault.Wrap(err, "read vaultAddr")
	}
	s := &store{o: o, server: server, session: newSession(ctx, o, server, env.Logger)}
	if err := s.session.open(ctx); err != nil {
		server.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the renewal of the token, which lives on until its time is over.
func (s *store) Close(context.Context) error {
	s.session.close()
	s.server.Close()
	return nil
}

// Get returns the pairs of one secret or, as text, its JSON under the key.
func (s *store) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	path, err := s.path("data", key)
	if err != nil {
		return nil, err
	}
	if version := metadata[versionKey]; version != "" {
		n, err := strconv.ParseUint(version, 10, 31)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read metadata %s: %q is not the number of a version", versionKey, version)
		}
		path += "?version=" + strconv.FormatUint(n, 10)
	}
	body, err := s.session.ask(ctx, path)
	if err != nil {
		return nil, err
	}
	return s.pairs(key, body)
}

// pairs reads a secret's answer.
func (s *store) pairs(key string, body []byte) (map[string]string, error) {
	var answer struct {
		Data struct {
			Data json.RawMessage `json:"data"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, malformed(s.server.Host())
	}
	if isNull(answer.Data.Data) { // a version that was deleted
		return nil, fault.New(fault.NotFound, "read secret: it has no data at this version")
	}
	if s.o.ValueType == "text" {
		return map[string]string{key: string(answer.Data.Data)}, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(answer.Data.Data, &values); err != nil {
		return nil, malformed(s.server.Host())
	}
	out := make(map[string]string, len(values))
	for name, raw := range values {
		if isNull(raw) {
			continue
		}
		text := string(raw)
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &text); err != nil {
				return nil, malformed(s.server.Host())
			}
		}
		out[name] = text
	}
	return out, nil
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// malformed says nothing of the answer, which may hold a secret.
func malformed(host string) error {
	return fault.New(fault.Unavailable, "read answer of %s: it is not the JSON of a key/value engine, version 2; see vaultAddr and enginePath", host)
}

// path makes the path of a key in one of the engine's two trees, data and
// metadata. An empty key is the folder of the prefix.
func (s *store) path(tree, key string) (string, error) {
	parts := []string{"/v1"}
	for p := range strings.SplitSeq(s.o.Engine, "/") {
		parts = append(parts, url.PathEscape(p))
	}
	parts = append(parts, tree)
	if s.o.UsePrefix {
		for p := range strings.SplitSeq(s.o.Prefix, "/") {
			parts = append(parts, url.PathEscape(p))
		}
	}
	if tree == "data" || key != "" {
		for p := range strings.SplitSeq(key, "/") {
			if !plain(p) {
				return "", fault.New(fault.Invalid, "read secret %q: a key is names with / between them, and none may be empty, . or ..", key)
			}
			parts = append(parts, url.PathEscape(p))
		}
	}
	return strings.Join(parts, "/"), nil
}

// plain tells whether a part of a path is a name.
func plain(part string) bool {
	return part != "" && part != "." && part != ".." && part == strings.TrimSpace(part) &&
		!strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Bulk returns every secret below the prefix; the key of one in a folder has the
// folder in front. A secret whose newest version is deleted is left out.
func (s *store) Bulk(ctx context.Context, _ map[string]string) (map[string]map[string]string, error) {
	keys, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]string, len(keys))
	var mu sync.Mutex // guards all
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, key := range keys {
		g.Go(func() error {
			pairs, err := s.Get(ctx, key, nil)
			if err != nil && fault.KindOf(err) == fault.NotFound {
				return nil
			}
			if err != nil {
				return fault.Wrap(err, "read secret %q", key)
			}
			mu.Lock()
			defer mu.Unlock()
			all[key] = pairs
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all, nil
}

// keys lists the keys of all secrets below the prefix.
func (s *store) keys(ctx context.Context) ([]string, error) {
	var keys []string
	folders := []string{""}
	for len(folders) > 0 {
		folder := folders[0]
		folders = folders[1:]
		names, err := s.list(ctx, strings.TrimSuffix(folder, "/"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			key := folder + name
			if !strings.HasSuffix(name, "/") {
				keys = append(keys, key)
			} else if strings.Count(key, "/") <= maxFolders {
				folders = append(folders, key)
			}
		}
		if len(keys)+len(folders) > maxSecrets {
			return nil, fault.New(fault.Exhausted, "list secrets: there are more than %d", maxSecrets)
		}
	}
	return keys, nil
}

// list returns the names in a folder; those of folders end with a slash.
func (s *store) list(ctx context.Context, folder string) ([]string, error) {
	path, err := s.path("metadata", folder)
	if err != nil {
		return nil, nil // a name that cannot be asked for
	}
	body, err := s.session.ask(ctx, path+"?list=true")
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, "list secrets")
	}
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, malformed(s.server.Host())
	}
	names := answer.Data.Keys[:0]
	for _, name := range answer.Data.Keys {
		if plain(strings.TrimSuffix(name, "/")) {
			names = append(names, name)
		}
	}
	return names, nil
}
