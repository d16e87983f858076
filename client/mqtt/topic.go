package mqtt

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

const longest = 65535 // bytes of any text of the protocol

// CheckTopic returns what is wrong with a topic to publish to.
func CheckTopic(topic string) error {
	if err := checkText(topic); err != nil {
		return err
	}
	if strings.ContainsAny(topic, "+#") {
		return fault.New(fault.Invalid, "topic %.80q must not hold + or #, which stand for other topics", topic)
	}
	return nil
}

// CheckFilter returns what is wrong with a topic to subscribe to, in which + is
// any level and # at the end all that follow.
func CheckFilter(filter string) error {
	if err := checkText(filter); err != nil {
		return err
	}
	rest := filter
	if group, ok := strings.CutPrefix(filter, share); ok {
		name, topic, _ := strings.Cut(group, "/")
		if name == "" || topic == "" || strings.ContainsAny(name, "+#") {
			return fault.New(fault.Invalid, "topic %.80q must be %sgroup/topic", filter, share)
		}
		rest = topic
	}
	levels := strings.Split(rest, "/")
	for i, level := range levels {
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && i < len(levels)-1 {
			return fault.New(fault.Invalid, "topic %.80q: + and # must be levels of their own, and # the last", filter)
		}
	}
	return nil
}

func checkText(topic string) error {
	switch {
	case topic == "":
		return fault.New(fault.Invalid, "topic is empty")
	case len(topic) > longest:
		return fault.New(fault.Invalid, "topic %.40q is longer than %d bytes", topic, longest)
	case !utf8.ValidString(topic) || strings.ContainsRune(topic, 0):
		return fault.New(fault.Invalid, "topic %.80q must be UTF-8 without zeros", topic)
	}
	return nil
}

// share begins the filters whose messages the server shares out.
const share = "$share/"

// plainName makes a name of parts that every server takes as a client id and as
// a level of a topic. It tells apart whatever the parts tell apart.
func plainName(parts ...string) string {
	text := strings.Join(parts, "-")
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, text)
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	if len(parts) == 1 && plain == text && len(plain) <= 64 {
		return plain
	}
	return plain[:min(len(plain), 48)] + "-" + hex.EncodeToString(sum[:5])
}
