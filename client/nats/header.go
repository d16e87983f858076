package nats

import (
	"encoding/json"
	"strings"

	"github.com/nats-io/nats.go"
)

// Headers of ours. Others, "Nats-..." apart, are metadata.
const (
	headerKey  = "Penstock-Key"      // the ordering key
	headerMore = "Penstock-Metadata" // a JSON object: what cannot stand in a header as it is
)

// Headers makes the headers of a message; nil when there is nothing to say.
func Headers(metadata map[string]string, key, id string) nats.Header {
	if len(metadata) == 0 && key == "" && id == "" {
		return nil
	}
	h := make(nats.Header, len(metadata)+2)
	more := map[string]string{}
	for k, v := range metadata {
		if k == headerKey {
			continue // it would be read as the key
		}
		if plainName(k) && plain(v) {
			h[k] = []string{v}
			continue
		}
		more[k] = v
	}
	if key != "" {
		if plain(key) {
			h[headerKey] = []string{key}
		} else {
			more[headerKey] = key
		}
	}
	if id != "" && plain(id) {
		h[nats.MsgIdHdr] = []string{id}
	}
	if len(more) > 0 {
		if text, err := json.Marshal(more); err == nil { // a map of texts always can
			h[headerMore] = []string{string(text)}
		}
	}
	return h
}

// plainName tells whether metadata may be a header of its own: the server takes
// no order from it and other clients can read it.
func plainName(k string) bool {
	if k == "" || reserved(k) {
		return false
	}
	for i := range len(k) {
		if c := k[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}

func reserved(k string) bool {
	return hasPrefixFold(k, "Nats-") || hasPrefixFold(k, "Penstock-") || strings.EqualFold(k, "Status") || strings.EqualFold(k, "Description")
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// plain tells whether a value arrives as it is.
func plain(v string) bool {
	return !strings.ContainsAny(v, "\r\n") && strings.Trim(v, " \t") == v
}

// Metadata reads the headers of a message into into, which may be nil when there
// are none, and returns the ordering key. Headers of the server are left out.
func Metadata(h nats.Header, into map[string]string) (key string) {
	for k, vs := range h {
		if len(vs) == 0 {
			continue
		}
		switch {
		case k == headerKey:
			key = vs[0]
		case k == headerMore:
			more := map[string]string{}
			if json.Unmarshal([]byte(vs[0]), &more) != nil {
				continue // somebody else's
			}
			for k, v := range more {
				if k == headerKey {
					key = v
				} else {
					into[k] = v
				}
			}
		case reserved(k):
		default:
			into[k] = vs[0]
		}
	}
	return key
}
