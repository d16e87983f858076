package http

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// maxRetryAfter is the longest pause that [RetryAfter] believes.
const maxRetryAfter = 24 * time.Hour

// RetryAfter returns the pause that the Retry-After header asks for, counted
// from now: a number of seconds or a date. It is zero when the header is
// missing, past or unreadable, and never more than 24 h.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 63); err == nil {
		if n > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// ReadBody reads at most limit bytes. A longer body is an error of kind
// Exhausted that comes with the first limit bytes; a broken connection is
// Unavailable.
func ReadBody(body io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case err != nil && fault.KindOf(err) == fault.Internal:
		return data, fault.New(fault.Unavailable, "read answer: %w", err)
	case err != nil:
		return data, fault.Wrap(err, "read answer")
	case int64(len(data)) > limit:
		return data[:limit], fault.New(fault.Exhausted, "read answer: more than %d bytes", limit)
	}
	return data, nil
}
