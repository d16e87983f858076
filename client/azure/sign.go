package azure

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Versions of the services that requests are made for.
const (
	blobVersion  = "2021-12-02"
	tableVersion = "2019-02-02"
)

// sign dates a request and signs it with the account's key, in the scheme called
// Shared Key.
func (c *Client) sign(r *http.Request, length int, now time.Time) {
	r.Header.Set("x-ms-date", now.UTC().Format(http.TimeFormat))
	text := ""
	switch c.service {
	case Table:
		r.Header.Set("x-ms-version", tableVersion)
		text = c.tableText(r)
	default:
		r.Header.Set("x-ms-version", blobVersion)
		text = c.blobText(r, length)
	}
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(text))
	r.Header.Set("Authorization", "SharedKey "+c.name+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// blobText is what is signed of a request to the blob service.
func (c *Client) blobText(r *http.Request, length int) string {
	size := ""
	if length > 0 {
		size = strconv.Itoa(length)
	}
	var b strings.Builder
	line := func(s string) { b.WriteString(s + "\n") }
	line(r.Method)
	line(r.Header.Get("Content-Encoding"))
	line(r.Header.Get("Content-Language"))
	line(size)
	for _, name := range []string{"Content-MD5", "Content-Type", "Date", "If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"} {
		line(r.Header.Get(name))
	}
	own := map[string]string{}
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			own[name] = strings.Join(values, ",")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		line(name + ":" + own[name])
	}
	b.WriteString("/" + c.name + r.URL.EscapedPath())
	query := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := slices.Sorted(slices.Values(query[name]))
		b.WriteString("\n" + strings.ToLower(name) + ":" + strings.Join(values, ","))
	}
	return b.String()
}

// tableText is what is signed of a request to the table service.
func (c *Client) tableText(r *http.Request) string {
	resource := "/" + c.name + r.URL.EscapedPath()
	if comp := r.URL.Query().Get("comp"); comp != "" {
		resource += "?comp=" + comp
	}
	return strings.Join([]string{r.Method, r.Header.Get("Content-MD5"), r.Header.Get("Content-Type"), r.Header.Get("x-ms-date"), resource}, "\n")
}
