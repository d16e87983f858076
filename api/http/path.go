package http

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/middleware"
)

// canonical returns the one reading of a request's path, which the middlewares
// before have as well.
func canonical(u *url.URL) string { return middleware.Path(u) }

const (
	healthPath   = "/v1.0/healthz"
	outboundPath = "/v1.0/healthz/outbound"
)

// exempt tells whether a request needs no token: health, by exact path and
// method.
func exempt(method, path string) bool {
	return method == http.MethodGet && (path == healthPath || path == outboundPath)
}

// target is where to publish, as it stands in the path.
type target struct{ bus, topic string }

// publishTarget finds requests to publish one event without the router: that is
// the hot path. It answers exactly as the routes of the router would.
func publishTarget(method, path string) (target, bool) {
	if method != http.MethodPost && method != http.MethodPut {
		return target{}, false
	}
	const prefix = "/v1.0/publish/"
	if !strings.HasPrefix(path, prefix) {
		return target{}, false
	}
	bus, topic, ok := strings.Cut(path[len(prefix):], "/")
	if !ok || bus == "bulk" && strings.Contains(topic, "/") {
		return target{}, false
	}
	return target{bus, topic}, true
}

// unescape decodes one name of a path, once. Control characters and what is no
// UTF-8 are refused: no component, topic or key has them.
func unescape(what, raw string) (string, error) {
	s := raw
	if strings.Contains(raw, "%") {
		var err error
		if s, err = url.PathUnescape(raw); err != nil {
			return "", api.Errorf(api.BadRequest, "read %s in the path: bad escape in %q", what, raw)
		}
	}
	if !utf8.ValidString(s) {
		return "", api.Errorf(api.BadRequest, "read %s in the path: %q is not UTF-8", what, raw)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return "", api.Errorf(api.BadRequest, "read %s in the path: it holds a control character", what)
		}
	}
	return s, nil
}
