package kafka

import (
	"net/url"
	"strconv"
)

// Metadata is what a record says beside its value, under the names that Dapr
// gives it: __key, __offset, __topic, __timestamp (milliseconds), __partition,
// and the headers. With escape, key and headers are in URL encoding.
func Metadata(r *Record, escape bool) map[string]string {
	text := func(b []byte) string {
		if escape {
			return url.QueryEscape(string(b))
		}
		return string(b)
	}
	m := make(map[string]string, 5+len(r.Headers))
	for i := range r.Headers {
		m[r.Headers[i].Key] = text(r.Headers[i].Value)
	}
	if r.Key != nil {
		m["__key"] = text(r.Key)
	} else {
		delete(m, "__key")
	}
	// Both numbers are cut from one text: this runs for every message.
	var buf [48]byte
	b := strconv.AppendInt(buf[:0], r.Offset, 10)
	n := len(b)
	both := string(strconv.AppendInt(b, r.Time.UnixMilli(), 10))
	m["__offset"], m["__timestamp"] = both[:n], both[n:]
	m["__topic"] = r.Topic
	m["__partition"] = strconv.Itoa(r.Partition)
	return m
}
