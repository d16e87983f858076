package trace

import (
	"errors"
	"net/url"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// shown is an address without what may be a secret in it: a user, a password, a
// query.
func shown(endpoint string) string {
	endpoint, _, _ = strings.Cut(endpoint, "?")
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, rest = "", endpoint
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "***" + rest[at:]
	}
	if ok {
		scheme += "://"
	}
	return cut(scheme + rest)
}

// plain is the error of a request without the URL that it went to, but for the
// host.
func plain(err error) error {
	failed, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	host := "the collector"
	if u, err := url.Parse(failed.URL); err == nil {
		host = u.Host
	}
	return fault.Wrap(failed.Err, "send spans to %s", host)
}
