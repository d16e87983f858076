package vault

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

type options struct {
	Address    string           `meta:"vaultAddr" doc:"Address of the server." default:"https://127.0.0.1:8200" example:"https://vault.example.com:8200"`
	Token      component.Secret `meta:"vaultToken" doc:"Token to show; it is renewed if it can be."`
	TokenPath  string           `meta:"vaultTokenMountPath" doc:"File that holds the token; it is read before each request and renewed by whoever writes it." example:"/run/secrets/vault-token"`
	Prefix     string           `meta:"vaultKVPrefix" doc:"Folder in the engine that holds the secrets." default:"dapr"`
	UsePrefix  bool             `meta:"vaultKVUsePrefix" doc:"Whether vaultKVPrefix is put before each key." default:"true"`
	Engine     string           `meta:"enginePath" doc:"Path that the key/value engine, version 2, is mounted at." default:"secret"`
	ValueType  string           `meta:"vaultValueType" doc:"Whether a secret is its pairs (map) or one JSON text under its key (text)." enum:"map|text" default:"map"`
	Namespace  string           `meta:"vaultNamespace" doc:"Namespace of the server that everything is in." example:"teams/orders"`
	CAPem      string           `meta:"caPem" doc:"Certificates to trust, as PEM, a file or a folder of PEM files; use one of caPem, caPath and caCert."`
	CAPath     string           `meta:"caPath" doc:"As caPem."`
	CACert     string           `meta:"caCert" doc:"As caPem."`
	SkipVerify bool             `meta:"skipVerify" doc:"Takes any certificate of the server." default:"false"`
	ServerName string           `meta:"tlsServerName" doc:"Name that the server's certificate must be for; empty: the host of vaultAddr."`

	Auth         string           `meta:"vaultAuth" doc:"How to log in. Empty: by token." enum:"token|approle|kubernetes" default:"token"`
	AuthPath     string           `meta:"vaultAuthPath" doc:"Path that the login method is mounted at; its usual one when empty." example:"k8s-east"`
	RoleID       string           `meta:"roleID" doc:"Role of an AppRole login."`
	SecretID     component.Secret `meta:"secretID" doc:"Secret of an AppRole login; empty for a role that needs none."`
	SecretIDPath string           `meta:"secretIDPath" doc:"File that holds the secret of an AppRole login; it is read before each login." example:"/run/secrets/vault-secret-id"`
	Role         string           `meta:"kubernetesRole" doc:"Role of a Kubernetes login."`
	JWTPath      string           `meta:"kubernetesTokenPath" doc:"File of the service account's token for a Kubernetes login; it is read before each login." default:"/var/run/secrets/kubernetes.io/serviceaccount/token"`
}

// The ways to log in.
const (
	byToken      = "token"
	byAppRole    = "approle"
	byKubernetes = "kubernetes"
)

// Check refuses what cannot work together.
func (o options) Check() error {
	var errs []error
	wrong := func(option, format string, args ...any) {
		errs = append(errs, component.OptionErrorf(option, format, args...))
	}
	u, err := url.Parse(o.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		wrong("vaultAddr", "want an address such as https://vault:8200")
	}
	for option, path := range map[string]string{"enginePath": o.Engine, "vaultKVPrefix": o.Prefix, "vaultAuthPath": o.AuthPath} {
		for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			if !plain(part) && path != "" {
				wrong(option, "%q is not a path of names with / between them", path)
				break
			}
		}
	}
	if o.Engine == "" {
		wrong("enginePath", "must not be empty")
	}
	switch o.Auth {
	case byAppRole:
		if o.RoleID == "" {
			wrong("roleID", "is missing: vaultAuth is approle")
		}
		if !o.SecretID.IsZero() && o.SecretIDPath != "" {
			wrong("secretIDPath", "give either secretID or secretIDPath")
		}
	case byKubernetes:
		if o.Role == "" {
			wrong("kubernetesRole", "is missing: vaultAuth is kubernetes")
		}
	default:
		if o.Token.IsZero() == (o.TokenPath == "") {
			wrong("vaultToken", "give either vaultToken or vaultTokenMountPath, or log in with vaultAuth")
		}
	}
	if !header(o.Token.Reveal()) {
		wrong("vaultToken", "has characters that a token cannot have, such as a line break")
	}
	if given := o.authorities(); len(given) > 1 {
		wrong(given[1].Option, "give one of caPem, caPath and caCert")
	} else if len(given) == 1 && strings.Contains(given[0].Value, "-----BEGIN ") {
		if err := (clienttls.Options{CA: given[0]}).Check(); err != nil {
			wrong(given[0].Option, "%w", err)
		}
	}
	return errors.Join(errs...)
}

// header tells whether a text can stand in a header.
func header(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// authorities are the options that say whom to trust.
func (o options) authorities() []clienttls.Text {
	var given []clienttls.Text
	for _, t := range []clienttls.Text{{Option: "caPem", Value: o.CAPem}, {Option: "caPath", Value: o.CAPath}, {Option: "caCert", Value: o.CACert}} {
		if t.Value != "" {
			given = append(given, t)
		}
	}
	return given
}

// tls returns nil when everything is as usual.
func (o options) tls() (*tls.Config, error) {
	c := clienttls.Options{ServerName: o.ServerName, SkipVerify: o.SkipVerify}
	for _, ca := range o.authorities() {
		if info, err := os.Stat(ca.Value); err == nil && info.IsDir() {
			if ca.Value, err = folder(ca.Value); err != nil {
				return nil, fault.Wrap(err, "read %s", ca.Option)
			}
		}
		c.CA = ca
	}
	if c.IsZero() {
		return nil, nil
	}
	return c.Config()
}

// folder returns the PEM of all files in a folder.
func folder(name string) (string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return "", err
	}
	var all []byte
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(name, e.Name()))
		if err != nil {
			continue // a folder, or another user's
		}
		if b, _ := pem.Decode(data); b != nil {
			all = append(append(all, bytes.TrimSpace(data)...), '\n')
		}
	}
	if len(all) == 0 {
		return "", fault.New(fault.Invalid, "no PEM in a file of the folder")
	}
	return string(all), nil
}
