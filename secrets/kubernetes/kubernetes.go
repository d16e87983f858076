// Package kubernetes is the secret store that reads the Secret objects of a
// Kubernetes cluster.
//
// Configure it as secretstores.kubernetes. Inside a cluster it needs no options:
// address, token and certificate are those that every pod gets. Outside, give
// apiServer, a token and caCert. A secret is an object of its name in a
// namespace, that of the request's metadata or the default; its entries are the
// answer.
//
// It promises that a token file is read again for each request, that a name is
// the name of one object and nothing else, and that no token or value is in an
// error. Nothing is kept: every Get asks the API server, over HTTP.
package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// Component is listed in package all.
var Component = secrets.Define("kubernetes", component.About{
	Summary: "Secrets of a Kubernetes cluster",
	Limits:  "A request may take 20 s and an answer 16 MiB. A bulk request reads 10,000 objects, 500 at a time.",
	Scale:   "Every process asks the API server by itself.",
	Dapr: "The API is spoken over HTTP, without a kubeconfig: outside a cluster give apiServer, token and caCert. Without a namespace that of the pod is used. " +
		"There is no store of this kind unless a document names one.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: cluster
spec:
  type: secretstores.kubernetes
  version: v1
  metadata:
    - name: defaultNamespace
      value: orders
`,
}, open)

type options struct {
	Namespace  string            `meta:"defaultNamespace" doc:"Namespace of requests that name none; that of the instance, then that of the pod, when empty." example:"orders"`
	Server     string            `meta:"apiServer" doc:"Address of the API server; that of the cluster this runs in when empty." example:"https://127.0.0.1:6443"`
	Token      component.Secret  `meta:"token" doc:"Token to show."`
	TokenPath  string            `meta:"tokenPath" doc:"File that holds the token; it is read for each request. That of the pod when this and token are empty."`
	CACert     string            `meta:"caCert" doc:"Certificates to trust, as PEM or the path of a PEM file; those of the pod when it and apiServer are empty."`
	SkipVerify bool              `meta:"skipVerify" doc:"Takes any certificate of the server." default:"false"`
	Config     component.Ignored `meta:"kubeconfigPath" doc:"Penstock reads no kubeconfig; give apiServer, token or tokenPath, and caCert."`
}

// The files that every pod gets.
const (
	podFolder    = "/var/run/secrets/kubernetes.io/serviceaccount/"
	podToken     = podFolder + "token"
	podCA        = podFolder + "ca.crt"
	podNamespace = podFolder + "namespace"
)

// Check refuses what cannot work.
func (o options) Check() error {
	var errs []error
	if o.Namespace != "" && !isName(o.Namespace, maxNamespace) {
		errs = append(errs, component.OptionErrorf("defaultNamespace", "%q is not the name of a namespace", o.Namespace))
	}
	if !o.Token.IsZero() && o.TokenPath != "" {
		errs = append(errs, component.OptionErrorf("tokenPath", "give either token or tokenPath"))
	}
	if !isHeader(o.Token.Reveal()) {
		errs = append(errs, component.OptionErrorf("token", "has characters that a token cannot have, such as a line break"))
	}
	if u, err := url.Parse(o.Server); o.Server != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil) {
		errs = append(errs, component.OptionErrorf("apiServer", "want an address such as https://10.0.0.1:6443"))
	}
	if err := o.tls().Check(); err != nil {
		errs = append(errs, component.OptionErrorf("caCert", "%w", err))
	}
	return errors.Join(errs...)
}

func (o options) tls() clienttls.Options {
	return clienttls.Options{CA: clienttls.Text{Option: "caCert", Value: o.CACert}, SkipVerify: o.SkipVerify}
}

// inPod fills in what a pod has.
func (o options) inPod() (options, error) {
	if o.Server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return o, fault.New(fault.Invalid, "find the API server: this is no pod of a cluster; give apiServer, token or tokenPath, and caCert")
		}
		o.Server = "https://" + net.JoinHostPort(host, port)
		if o.CACert == "" {
			o.CACert = podCA
		}
	}
	if o.Token.IsZero() && o.TokenPath == "" {
		o.TokenPath = podToken
	}
	return o, nil
}

type store struct {
	o         options
	namespace string
	server    *clienthttp.Server
}

func open(ctx context.Context, env component.Env, o options) (secrets.Driver, error) {
	o, err := o.inPod()
	if err != nil {
		return nil, err
	}
	c := clienthttp.Options{}
	if t := o.tls(); !t.IsZero() {
		if c.TLS, err = t.Config(); err != nil {
			return nil, err
		}
	}
	s := &store{o: o, namespace: defaultNamespace(o, env)}
	if s.server, err = clienthttp.NewServer(o.Server, c); err != nil {
		return nil, fault.Wrap(err, "read apiServer")
	}
	// Every path answers so to a token that it does not know; that the version
	// may not be read says nothing.
	if _, err := s.ask(ctx, "/version"); err != nil && !isForbidden(err) {
		s.server.Close()
		return nil, err
	}
	return s, nil
}

func defaultNamespace(o options, env component.Env) string {
	if o.Namespace != "" {
		return o.Namespace
	}
	if env.Namespace != "" {
		return env.Namespace
	}
	data, _ := os.ReadFile(podNamespace) // there is none outside a pod
	return strings.TrimSpace(string(data))
}

// Close drops the connections.
func (s *store) Close(context.Context) error {
	s.server.Close()
	return nil
}

const (
	namespaceKey = "namespace" // of a request's metadata
	maxName      = 253
	maxNamespace = 63
)

// secret is an object; data is base64 on the wire.
type secret struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Data map[string][]byte `json:"data"`
}

func (s secret) pairs() map[string]string {
	out := make(map[string]string, len(s.Data))
	for name, value := range s.Data {
		out[name] = string(value)
	}
	return out
}

// Get returns the entries of one object.
func (s *store) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	folder, err := s.folder(metadata)
	if err != nil {
		return nil, err
	}
	if !isName(key, maxName) {
		return nil, fault.New(fault.Invalid, "read secret %q: not the name of an object: small letters, digits, - and . are allowed", key)
	}
	body, err := s.ask(ctx, folder+"/"+key)
	if err != nil {
		return nil, err
	}
	var object secret
	if err := json.Unmarshal(body, &object); err != nil || object.Metadata.Name != key {
		return nil, s.malformed()
	}
	return object.pairs(), nil
}

// folder is the path of a namespace's secrets.
func (s *store) folder(metadata map[string]string) (string, error) {
	namespace := s.namespace
	if n := metadata[namespaceKey]; n != "" {
		namespace = n
	}
	if namespace == "" {
		return "", fault.New(fault.Invalid, "read secret: no namespace is known: give defaultNamespace, or %s in the metadata of the request", namespaceKey)
	}
	if !isName(namespace, maxNamespace) {
		return "", fault.New(fault.Invalid, "read secret: %q is not the name of a namespace", namespace)
	}
	return "/api/v1/namespaces/" + namespace + "/secrets", nil
}

// isName tells whether a text names an object: it then means nothing else in a
// path.
func isName(text string, most int) bool {
	if text == "" || len(text) > most {
		return false
	}
	for part := range strings.SplitSeq(text, ".") {
		if part == "" || strings.Trim(part, "-") != part || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// Bounds of a bulk request.
const (
	maxSecrets = 10_000
	page       = "500"
)

// Bulk returns every object of a namespace.
func (s *store) Bulk(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	folder, err := s.folder(metadata)
	if err != nil {
		return nil, err
	}
	all := map[string]map[string]string{}
	for more := ""; ; {
		query := url.Values{"limit": {page}}
		if more != "" {
			query.Set("continue", more)
		}
		body, err := s.ask(ctx, folder+"?"+query.Encode())
		if err != nil {
			return nil, fault.Wrap(err, "list secrets")
		}
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []secret `json:"items"`
		}
		if err := json.Unmarshal(body, &list); err != nil || list.Items == nil {
			return nil, s.malformed()
		}
		for _, object := range list.Items {
			all[object.Metadata.Name] = object.pairs()
		}
		if len(all) > maxSecrets {
			return nil, fault.New(fault.Exhausted, "list secrets: there are more than %d", maxSecrets)
		}
		if more = list.Metadata.Continue; more == "" || len(list.Items) == 0 {
			return all, nil
		}
	}
}

// malformed says nothing of the answer, which may hold a secret.
func (s *store) malformed() error {
	return fault.New(fault.Unavailable, "read answer of %s: it is not the JSON of the Kubernetes API; see apiServer", s.server.Host())
}

func (s *store) ask(ctx context.Context, path string) ([]byte, error) {
	token := s.o.Token.Reveal()
	if token == "" {
		var err error
		if token, err = readToken(s.o.TokenPath); err != nil {
			return nil, err
		}
	}
	a, err := s.server.Do(ctx, clienthttp.Call{Path: path, Header: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		return nil, err
	}
	return a.Body, refusal(a)
}

// readToken reads a token's file, whose content is never shown.
func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fault.Wrap(err, "read tokenPath")
	}
	defer f.Close()
	const most = 64 << 10
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return "", fault.Wrap(err, "read tokenPath")
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(data) > most || !isHeader(token) {
		return "", fault.New(fault.Invalid, "read tokenPath: %s holds no token on one line", name)
	}
	return token, nil
}

// isHeader tells whether a text can stand in a header.
func isHeader(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// statusError is an answer that is no success.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// HTTPStatus returns the status, by which a policy may judge the error.
func (e *statusError) HTTPStatus() int { return e.status }

func isForbidden(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.status == http.StatusForbidden
}

// refusal is the error of an answer, with what the server says of it; nil for
// one of 2xx.
func refusal(a *clienthttp.Answer) error {
	if a.Status/100 == 2 {
		return nil
	}
	var said struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(a.Body, &said) // what is no status of the API says nothing
	text := strings.TrimRight(strings.Join(strings.Fields(said.Message), " "), ".")
	if len(text) > 400 {
		text = strings.ToValidUTF8(text[:400], "") + "..."
	}
	kind := fault.FromHTTPStatus(a.Status)
	if a.Status/100 == 3 {
		kind, text = fault.Unavailable, "the server sends on to another one, see apiServer"
	}
	if text == "" {
		text = http.StatusText(a.Status)
	}
	e := &statusError{a.Status, "ask the Kubernetes API: " + text}
	err := fault.As(kind, e)
	if after := clienthttp.RetryAfter(a.Header, time.Now()); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}
