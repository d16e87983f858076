package http

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxPath     = 8192
	jsonContent = "application/json; charset=utf-8"

	pathBytes  = "-._~/!$&'()*+,;=:@[]%"
	queryBytes = pathBytes + "?{}|^`"
)

// join puts path behind the base. The result always has the base's scheme,
// user and host, and a path below the base's.
func join(base *url.URL, path string) (*url.URL, error) {
	if path == "" {
		return base, nil
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("longer than %d bytes", maxPath)
	}
	path, query, hasQuery := strings.Cut(path, "?")
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("%q: %w", shorten(path), err)
	}
	escaped := strings.TrimRight(base.EscapedPath(), "/") + "/" + escape(strings.TrimLeft(path, "/"), pathBytes)
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", shorten(path), err)
	}
	u := *base
	u.Path, u.RawPath = plain, escaped
	if hasQuery {
		if strings.Contains(query, "#") {
			return nil, errors.New("has a fragment; write # as %23")
		}
		u.RawQuery = strings.Trim(u.RawQuery+"&"+escape(query, queryBytes), "&")
	}
	return &u, nil
}

// isLocal tells whether a URL names this machine without asking anybody.
func isLocal(u *url.URL) bool {
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

func shorten(text string) string {
	return text[:min(len(text), 100)]
}

// checkPath refuses what some server, proxy or library could take for another
// host or for a way up, looked at as it is and unescaped up to three times.
func checkPath(path string) error {
	if scheme, _, ok := strings.Cut(path, ":"); ok && !strings.ContainsAny(scheme, "/") {
		return errors.New("looks like a whole URL; begin a path with /")
	}
	for range 3 {
		if err := checkForm(path); err != nil {
			return err
		}
		next, err := url.PathUnescape(path)
		if err != nil || next == path {
			break
		}
		path = next
	}
	return checkForm(path)
}

func checkForm(path string) error {
	switch {
	case strings.HasPrefix(path, "//"):
		return errors.New("begins with //, which names a host")
	case strings.HasPrefix(path, "@"):
		return errors.New("begins with @, which names a host; begin a path with /")
	case strings.Contains(path, `\`):
		return errors.New("has a backslash")
	case strings.Contains(path, "#"):
		return errors.New("has a fragment; write # as %23")
	case strings.ContainsFunc(path, func(r rune) bool { return r != utf8.RuneError && unicode.IsControl(r) }):
		return errors.New("has a control character")
	}
	for part := range strings.SplitSeq(path, "/") {
		if name, _, _ := strings.Cut(part, ";"); name == ".." {
			return errors.New("has a part that is .., which leads upwards")
		}
	}
	return nil
}

// escape leaves text as it is but for bytes that are neither letters nor digits
// nor in keep.
func escape(text, keep string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if isAlnum(c) || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// setHeaders takes headers from the metadata: keys that begin with a capital
// letter, and the trace context.
func (b *binding) setHeaders(req *http.Request, meta map[string]string, hasBody bool) error {
	h := req.Header
	h.Set("Accept", jsonContent)
	if hasBody {
		h.Set("Content-Type", jsonContent)
	}
	if name := b.options.SecurityTokenHeader; name != "" && !b.options.SecurityToken.IsZero() {
		h.Set(name, b.options.SecurityToken.Reveal())
	}
	for key, value := range meta {
		first, _ := utf8.DecodeRuneInString(key)
		name := textproto.CanonicalMIMEHeaderKey(key)
		if !unicode.IsUpper(first) && !isTrace(key) || isConnection(name) {
			continue
		}
		if !validName(key) {
			return fault.New(fault.Invalid, "set header %q: not the name of a header", shorten(key))
		}
		if !validValue(value) {
			return fault.New(fault.Invalid, "set header %s: the value has characters that a header cannot carry", key)
		}
		h.Set(name, value)
	}
	return nil
}

func isTrace(key string) bool {
	return key == "traceparent" || key == "tracestate" || key == "baggage"
}

// isConnection tells whether a header belongs to one connection and is not to
// be passed on; name is in canonical form.
func isConnection(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func validName(name string) bool {
	const special = "!#$%&'*+-.^_`|~"
	for _, c := range []byte(name) {
		if !isAlnum(c) && strings.IndexByte(special, c) < 0 {
			return false
		}
	}
	return name != ""
}

func validValue(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// tlsConfig returns nil when everything is as usual.
func tlsConfig(o options) (*tls.Config, error) {
	if o.RootCA == "" && o.ClientCert == "" && o.Renegotiation == "RenegotiateNever" {
		return nil, nil
	}
	conf, err := clienttls.Options{
		CA:   clienttls.Text{Option: "MTLSRootCA", Value: o.RootCA},
		Cert: clienttls.Text{Option: "MTLSClientCert", Value: o.ClientCert},
		Key:  clienttls.Text{Option: "MTLSClientKey", Value: o.ClientKey.Reveal()},
	}.Config()
	if err != nil {
		return nil, err
	}
	switch o.Renegotiation {
	case "RenegotiateOnceAsClient":
		conf.Renegotiation = tls.RenegotiateOnceAsClient
	case "RenegotiateFreelyAsClient":
		conf.Renegotiation = tls.RenegotiateFreelyAsClient
	}
	return conf, nil
}
