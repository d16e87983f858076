package webhook

import (
	"strings"
	"unicode"

	"github.com/penstock-io/penstock/cloudevents"
)

// maxText bounds ids, types and subjects taken from a request, in bytes.
const maxText = 512

// cleanText returns s when it can be an attribute of an event: UTF-8 without
// control characters, at most maxText bytes. Otherwise it is empty.
func cleanText(s string) string {
	if len(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) || cloudevents.CheckAttr(cloudevents.Attr{Name: "subject", Value: s}) != nil {
		return ""
	}
	return s
}

// isToken tells whether s can be the name of a header or method.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// isFieldValue tells whether s can be the value of a header.
func isFieldValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
