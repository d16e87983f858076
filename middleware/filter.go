package middleware

import (
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/penstock-io/penstock/component"
)

// Filter says which paths a middleware is for: Dapr's option pathFilter. The
// zero Filter is for all.
type Filter struct{ expr *regexp.Regexp }

// NewFilter reads the option; an empty text is the zero Filter.
func NewFilter(option, text string) (Filter, error) {
	if text == "" {
		return Filter{}, nil
	}
	expr, err := regexp.Compile(text)
	if err != nil {
		return Filter{}, component.OptionErrorf(option, "is no regular expression: %w", err)
	}
	return Filter{expr}, nil
}

// Matches tells whether the middleware is for a path. It is when the expression
// matches the path as it was sent, or decoded, or decoded and cleaned, so that no
// other spelling of a path that whoever comes next takes for the same gets around
// the middleware. A path that cannot be decoded matches.
func (f Filter) Matches(u *url.URL) bool {
	if f.expr == nil {
		return true
	}
	sent := Path(u)
	if f.expr.MatchString(sent) {
		return true
	}
	decoded, err := url.PathUnescape(sent)
	return err != nil || f.expr.MatchString(decoded) || f.expr.MatchString(path.Clean(decoded))
}

// CheckHeader checks an option that is the name of a header which a middleware
// sets. Those that frame a message are nobody's to set.
func CheckHeader(option, name string) error {
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Te", "Trailer":
		return component.OptionErrorf(option, "is a header that no middleware may set")
	}
	if name == "" || strings.Trim(name, headerLetters) != "" {
		return component.OptionErrorf(option, "is no name of a header, such as Authorization")
	}
	return nil
}

const headerLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
