package runtime

import (
	"net/textproto"
	"strings"

	"github.com/penstock-io/penstock/config"
	calling "github.com/penstock-io/penstock/invoke"
)

// httpEndpoint checks an endpoint, as far as that can be done without its secrets.
func (c *checker) httpEndpoint(e config.HTTPEndpoint) {
	who := "HTTPEndpoint " + e.Name
	c.problems = append(c.problems, e.CheckStore(c.set.Components)...)
	if e.BaseURL != "" { // else it is reported as missing
		if _, err := calling.NewEndpoint(calling.EndpointOptions{BaseURL: e.BaseURL}); err != nil {
			c.add(e.BaseURLPlace, "", "%s: baseUrl: %v", who, err)
		}
	}
	c.endpointHeaders(who, e.Headers)
	c.endpointTLS(who, e)
}

func (c *checker) endpointHeaders(who string, headers []config.Item) {
	seen := map[string]bool{}
	for _, it := range headers {
		name := textproto.CanonicalMIMEHeaderKey(it.Name)
		if err := calling.CheckHeader(it.Name, it.Value); err != nil {
			c.add(it.Place, "", "%s: %v", who, err)
			continue
		}
		first := len(c.problems)
		switch {
		case !calling.Sendable(name):
			c.add(it.NamePlace, "remove it", "%s: header %s belongs to the connection and is not sent", who, it.Name)
		case seen[name]:
			c.add(it.NamePlace, "remove one of them", "%s: header %s is given twice, of which the last is sent", who, it.Name)
		}
		c.lenient(first) // Dapr takes both
		seen[name] = true
	}
}

// endpointTLS checks the certificates. What is in a secret store is not known yet.
func (c *checker) endpointTLS(who string, e config.HTTPEndpoint) {
	at := map[string]config.Item{}
	for _, it := range e.TLS {
		at[it.Name] = it
	}
	all := certificates(e)
	if _, err := (calling.Certificates{RootCA: all.RootCA}).TLS(); err != nil {
		c.add(at[config.RootCA].Place, "", "%s: %v", who, err)
	}
	cert, hasCert := at[config.Certificate]
	key, hasKey := at[config.PrivateKey]
	switch {
	case hasCert && !hasKey:
		c.add(cert.NamePlace, "", "%s: clientTLS.%s needs clientTLS.%s as well", who, config.Certificate, config.PrivateKey)
	case hasKey && !hasCert:
		c.add(key.NamePlace, "", "%s: clientTLS.%s needs clientTLS.%s as well", who, config.PrivateKey, config.Certificate)
	case hasCert && cert.SecretRef == nil && key.SecretRef == nil:
		if _, err := (calling.Certificates{Certificate: all.Certificate, PrivateKey: all.PrivateKey}).TLS(); err != nil {
			c.add(cert.Place, "", "%s: %v", who, err)
		}
	}
	used := len(e.TLS) > 0 || e.Renegotiation != ""
	if scheme, _, _ := strings.Cut(e.BaseURL, "://"); used && strings.EqualFold(scheme, "http") {
		first := len(c.problems)
		c.add(e.TLSPlace, "write https:// in baseUrl, or remove it", "%s: clientTLS has no effect on http://", who)
		c.lenient(first)
	}
}
