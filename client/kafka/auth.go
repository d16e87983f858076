package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/fault"
)

// tls is how connections are encrypted; nil is not at all.
func (o *Options) tls() (*tls.Config, error) {
	auth := o.auth()
	if auth == authNone || o.DisableTLS {
		return nil, nil
	}
	return clienttls.Options{
		CA:         clienttls.Text{Option: "caCert", Value: o.CACert},
		Cert:       clienttls.Text{Option: "clientCert", Value: o.ClientCert},
		Key:        clienttls.Text{Option: "clientKey", Value: o.ClientKey.Reveal()},
		SkipVerify: o.SkipVerify,
	}.Config()
}

// mechanism is how SASL proves who we are; nil is not at all.
func (o *Options) mechanism(t *tls.Config) (sasl.Mechanism, error) {
	switch o.auth() {
	case authPassword:
		switch o.SASLMechanism {
		case "SHA-256":
			m, err := scram.Mechanism(scram.SHA256, o.SASLUsername, o.SASLPassword.Reveal())
			return m, fault.As(fault.Invalid, err)
		case "SHA-512":
			m, err := scram.Mechanism(scram.SHA512, o.SASLUsername, o.SASLPassword.Reveal())
			return m, fault.As(fault.Invalid, err)
		}
		return plain.Mechanism{Username: o.SASLUsername, Password: o.SASLPassword.Reveal()}, nil
	case authOIDC:
		extensions, err := o.extensions()
		if err != nil {
			return nil, fault.As(fault.Invalid, err)
		}
		client := &http.Client{Timeout: o.DialTimeout}
		if o.CACert != "" {
			// The same authority may have signed for both.
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			text, err := clienttls.Text{Option: "caCert", Value: o.CACert}.Read()
			if err != nil {
				return nil, err
			}
			pool.AppendCertsFromPEM(text)
			client.Transport = &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}
		}
		return &bearer{options: o, extensions: extensions, client: client}, nil
	}
	return nil, nil
}

// bearer is the mechanism OAUTHBEARER with tokens that a server gives for client
// credentials. One token serves until it is nearly over.
type bearer struct {
	options    *Options
	extensions map[string]string
	client     *http.Client

	mu    sync.Mutex
	token string
	until time.Time
}

// Name implements sasl.Mechanism.
func (*bearer) Name() string { return "OAUTHBEARER" }

// Start implements sasl.Mechanism.
func (b *bearer) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	token, err := b.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	var text strings.Builder
	text.WriteString("n,,\x01auth=Bearer " + token)
	for _, k := range slices.Sorted(maps.Keys(b.extensions)) {
		text.WriteString("\x01" + k + "=" + b.extensions[k])
	}
	text.WriteString("\x01\x01")
	return b, []byte(text.String()), nil
}

// Next implements sasl.StateMachine: an answer with something in it says why
// the token was refused.
func (b *bearer) Next(_ context.Context, challenge []byte) (bool, []byte, error) {
	if len(challenge) == 0 {
		return true, nil, nil
	}
	b.mu.Lock()
	b.token = ""
	b.mu.Unlock()
	return false, nil, fault.New(fault.Denied, "authenticate: the broker refuses the token: %.200q", challenge)
}

// get returns a token that is good for a while.
func (b *bearer) get(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token != "" && time.Now().Before(b.until) {
		return b.token, nil
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {b.options.OIDCClientID},
		"client_secret": {b.options.OIDCClientSecret.Reveal()},
		"scope":         {strings.ReplaceAll(b.options.OIDCScopes, ",", " ")},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.options.OIDCTokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fault.New(fault.Invalid, "ask for token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := b.client.Do(req)
	if err != nil {
		return "", fault.Wrap(err, "ask for token")
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", fault.Wrap(err, "ask for token")
	}
	if res.StatusCode != http.StatusOK {
		return "", fault.New(refusal(res.StatusCode), "ask for token: the server answers %s", res.Status)
	}
	var answer struct {
		Token   string `json:"access_token"`
		Seconds int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		return "", fault.New(fault.Denied, "ask for token: the answer has no access_token")
	}
	b.token = answer.Token
	b.until = time.Now().Add(time.Duration(max(answer.Seconds-30, answer.Seconds/2)) * time.Second)
	return b.token, nil
}

// refusal is the kind of an HTTP status of the token server: what it does not
// like of us is a matter of credentials.
func refusal(status int) fault.Kind {
	if k := fault.FromHTTPStatus(status); k != fault.Invalid {
		return k
	}
	return fault.Denied
}
