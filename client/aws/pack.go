package aws

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// Attributes of ours on a message. What of the metadata fits goes as attributes
// of its own name, so that filters of SNS can use it; the rest in metadataAttr as
// one JSON object.
const (
	metadataAttr = "penstock-metadata"
	encodingAttr = "penstock-encoding" // of the body: base64 when it is no text
	keyAttr      = "penstock-key"
	plainMost    = 7 // SQS takes ten; three are ours
)

// Packed is a message as SQS and SNS take it: they know only text that XML can
// hold, and ten attributes.
type Packed struct {
	Body       string
	Attributes map[string]string // texts all
}

// Bytes is what the message counts for in the limits.
func (p Packed) Bytes() int {
	n := len(p.Body)
	for name, v := range p.Attributes {
		n += len(name) + len(v) + len("String")
	}
	return n
}

// Pack makes a message of data, metadata and an ordering key, which may be
// empty. [Unpack] undoes it.
func Pack(data []byte, metadata map[string]string, key string) (Packed, error) {
	p := Packed{Body: string(data), Attributes: map[string]string{}}
	if !textual(p.Body) {
		p.Body = base64.StdEncoding.EncodeToString(data)
		p.Attributes[encodingAttr] = "base64"
		if p.Body == "" {
			p.Body = "=" // no message may be empty
		}
	}
	if textual(key) {
		p.Attributes[keyAttr] = key
	}
	var rest map[string]string
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		v := metadata[name]
		if len(p.Attributes) < plainMost && attributeName(name) && textual(v) {
			p.Attributes[name] = v
			continue
		}
		if rest == nil {
			rest = map[string]string{}
		}
		rest[name] = v
	}
	if rest == nil {
		return p, nil
	}
	raw, err := json.Marshal(rest)
	if err != nil {
		return p, fault.Wrap(err, "encode metadata")
	}
	p.Attributes[metadataAttr] = string(raw)
	return p, nil
}

// Unpack returns what [Pack] was given; attributes, which it changes, become the
// metadata. What cannot be decoded is left as it stands.
func Unpack(body string, attributes map[string]string) (data []byte, metadata map[string]string, key string) {
	data = []byte(body)
	if attributes[encodingAttr] == "base64" {
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(body, "=")); err == nil {
			data = raw
			delete(attributes, encodingAttr)
		}
	}
	if key = attributes[keyAttr]; key != "" {
		delete(attributes, keyAttr)
	}
	if rest := attributes[metadataAttr]; rest != "" && json.Unmarshal([]byte(rest), &attributes) == nil {
		delete(attributes, metadataAttr)
	}
	if len(attributes) == 0 {
		attributes = nil
	}
	return data, attributes, key
}

// textual tells whether SNS and SQS take a text: not empty, and of characters
// that XML 1.0 has.
func textual(s string) bool {
	for _, r := range s {
		switch {
		case r == utf8.RuneError, r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
			return false
		}
	}
	// A carriage return does not survive XML, in which SNS answers and asks.
	return s != "" && utf8.ValidString(s) && !strings.ContainsRune(s, '\r')
}

// attributeName tells whether a name can be that of a message attribute.
func attributeName(name string) bool {
	lower := strings.ToLower(name)
	if name == "" || len(name) > 256 || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") || strings.HasPrefix(lower, "penstock-") ||
		name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// GroupID makes a message group of a key: 128 characters of ASCII without a
// space. Longer ones end in a hash.
func GroupID(key string) string {
	const most = 128
	end := ""
	if len(key) > most {
		sum := sha256.Sum256([]byte(key))
		end = hex.EncodeToString(sum[:16])
	}
	var b strings.Builder
	for i := 0; i < len(key) && b.Len() < most-len(end); i++ {
		if c := key[i]; c > ' ' && c < 0x7F {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String() + end
}
