package component

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/penstock-io/penstock/config"
)

// pieces are what must not be shown of an address or a connection string, beside
// the whole of it when that is a secret: drivers take them apart and may quote a
// part. These are the password before an @, or the user name where there is no
// password, the query of a URL, and what follows words such as password= and
// AccountKey=.
func pieces(value string) []string {
	var out []string
	for address := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' }) {
		out = append(out, ofUser(address)...)
		out = append(out, ofQuery(address)...)
	}
	if strings.Contains(value, "=") {
		for _, m := range assigned.FindAllStringSubmatch(value, -1) {
			out = append(out, strings.Trim(m[1], `'"`))
		}
	}
	return out
}

// assigned finds what connection strings keep secret.
var assigned = regexp.MustCompile(`(?i)(?:^|[\s;&?,])[a-z_ -]*(?:password|passwd|pwd|secret|token|api[_-]?key|account[_-]?key|access[_-]?key|shared[_-]?access[_-]?key|` +
	`shared[_-]?access[_-]?signature|signature|sig)\s*=\s*('(?:[^'\\]|\\.)*'|"[^"]*"|[^\s;&]+)`)

// ofUser returns the password of an address, as it is written and as it is meant.
// Addresses of MySQL, such as user:password@tcp(host:3306)/db, have no scheme.
func ofUser(address string) []string {
	_, rest, hasScheme := strings.Cut(address, "://")
	if !hasScheme {
		rest = address
	}
	at := strings.LastIndexByte(rest, '@')
	if cut := strings.IndexAny(rest, "/?#"); hasScheme && cut >= 0 && cut < at {
		// A password may have these signs in it, though it should not; a path
		// may have an @ as well. The first part is the one that is meant.
		if first := strings.LastIndexByte(rest[:cut], '@'); first >= 0 {
			at = first
		}
	}
	if at < 0 {
		return nil
	}
	user, password, both := strings.Cut(rest[:at], ":")
	switch {
	case both && (hasScheme || userName.MatchString(user)):
	case hasScheme && !strings.ContainsAny(user, "/?#"):
		password = user
	default:
		return nil // user@host without a password: nothing of it is a secret
	}
	return append(unescaped(password), password)
}

// userName is one in an address without a scheme.
var userName = regexp.MustCompile(`^[\w.%+-]+$`)

// long is the length of a value in a query that may be a secret whatever its name.
const long = 12

// ofQuery returns the query of a URL, and the values in it that may be secrets.
func ofQuery(address string) []string {
	if !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		return nil // options of a driver; those that are secrets have names
	}
	_, query, ok := strings.Cut(address, "?")
	if !ok {
		return nil
	}
	query, _, _ = strings.Cut(query, "#")
	out := append(unescaped(query), query)
	for pair := range strings.SplitSeq(query, "&") {
		if k, v, ok := strings.Cut(pair, "="); ok && (len(v) >= long || config.SpeaksOfSecret(k)) {
			out = append(append(out, unescaped(v)...), v)
		}
	}
	return out
}

func unescaped(text string) []string {
	if plain, err := url.PathUnescape(text); err == nil && plain != text {
		return []string{plain}
	}
	return nil
}
