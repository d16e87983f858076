package rabbitmq

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers of ours. No app sees them.
const (
	own = "x-penstock-"
	// HeaderKey is the ordering key.
	HeaderKey = own + "key"
	// HeaderExpires is when the message is worth nothing any more, in
	// milliseconds since 1970: a queue's own clock begins again with every
	// retry.
	HeaderExpires = own + "expires"
	// HeaderID tells a message that has no MessageId apart across retries.
	HeaderID = own + "id"
	// headerAttempt is how often the message was delivered before.
	headerAttempt = own + "attempt"
	// headerCC keeps the header CC, which would send the retry to other queues.
	headerCC = own + "cc"
)

// Metadata makes the metadata of what was received: the headers as text. Those of
// CloudEvents in binary mode, however they are spelled, are called ce_*, and
// the content type stands beside them. It has room for more entries.
func Metadata(d *amqp.Delivery, more int) map[string]string {
	if len(d.Headers)+more == 0 {
		return nil
	}
	m := make(map[string]string, len(d.Headers)+more+1)
	event := false
	for name, value := range d.Headers {
		if strings.HasPrefix(name, own) {
			continue
		}
		if attr, ok := attribute(name); ok {
			name, event = "ce_"+attr, true
		}
		m[name] = text(value)
	}
	if event && d.ContentType != "" {
		m["content-type"] = d.ContentType
	}
	if len(m) == 0 && more == 0 {
		return nil
	}
	return m
}

// attribute tells that a header is an attribute of an event in binary mode.
func attribute(header string) (string, bool) {
	for _, prefix := range [...]string{"ce_", "ce-", "cloudEvents:", "cloudEvents_"} {
		if name, ok := strings.CutPrefix(header, prefix); ok && name != "" {
			return strings.ToLower(name), true
		}
	}
	return "", false
}

// text returns a header's value: text as it is, times as in RFC 3339, lists and
// tables as JSON.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case int32:
		return strconv.FormatInt(int64(v), 10)
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp.Table, []any:
		if b, err := json.Marshal(plain(v)); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(value)
}

// plain makes of a list or table what JSON can say.
func plain(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for name, value := range v {
			m[name] = plain(value)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, value := range v {
			l[i] = plain(value)
		}
		return l
	case []byte:
		return string(v)
	}
	return value
}

// number reads a header that is a whole number, whatever its type.
func number(headers amqp.Table, name string) int64 {
	switch v := headers[name].(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	case int16:
		return int64(v)
	case int8:
		return int64(v)
	case byte:
		return int64(v)
	}
	return 0
}

// Key returns the ordering key of a message, or nothing.
func Key(d *amqp.Delivery) string {
	if len(d.Headers) == 0 {
		return ""
	}
	key, _ := d.Headers[HeaderKey].(string)
	return key
}

// expired tells whether a message is worth nothing any more.
func expired(d *amqp.Delivery, now time.Time) bool {
	if len(d.Headers) == 0 {
		return false
	}
	at := number(d.Headers, HeaderExpires)
	return at != 0 && now.UnixMilli() >= at
}
