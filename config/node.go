package config

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// node is one YAML value and where it stands.
type node struct {
	kind   nodeKind
	text   string // of a scalar, as written
	quoted bool   // a scalar that is a text whatever it looks like
	list   []*node
	pairs  []pair
	at     Place
	own    bool // environment variables below it are in place already
}

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	listNode
	tableNode
)

// pair is one entry of a mapping.
type pair struct {
	key   string
	at    Place
	value *node
}

func (n *node) pair(key string) *pair {
	for i := range n.pairs {
		if n.pairs[i].key == key {
			return &n.pairs[i]
		}
	}
	return nil
}

// what says for a message what the node is.
func (n *node) what() string {
	switch n.kind {
	case listNode:
		return "a list"
	case tableNode:
		return "a mapping"
	}
	switch s := n.scalar(); s.kind {
	case nullScalar:
		return "empty"
	case textScalar:
		return strconv.Quote(cut(n.text, 80))
	default:
		return s.text
	}
}

// cut shortens a text for a message.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// scalar is what Dapr's reader, which follows YAML 1.1, makes of a value.
type scalar struct {
	kind scalarKind
	text string // the value as Dapr hands it to a component
}

type scalarKind uint8

const (
	textScalar scalarKind = iota
	nullScalar
	boolScalar
	numberScalar
)

var yaml11Float = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// scalar reads a plain value. Numbers get the one form that JSON gives them, so
// 1e3 is "1000" and 0x10 is "16"; whole numbers of more than 64 bits keep their
// digits, which Dapr loses.
func (n *node) scalar() scalar {
	if n.quoted {
		return scalar{textScalar, n.text}
	}
	switch n.text {
	case "", "~", "null", "Null", "NULL":
		return scalar{nullScalar, ""}
	case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return scalar{boolScalar, "true"}
	case "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return scalar{boolScalar, "false"}
	}
	if c := n.text[0]; (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' {
		return scalar{textScalar, n.text}
	}
	return number(n.text)
}

func number(text string) scalar {
	plain := strings.ReplaceAll(text, "_", "")
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return scalar{numberScalar, strconv.FormatInt(i, 10)}
	}
	if u, err := strconv.ParseUint(plain, 0, 64); err == nil {
		return scalar{numberScalar, strconv.FormatUint(u, 10)}
	}
	if !yaml11Float.MatchString(plain) {
		return scalar{textScalar, text}
	}
	if strings.Trim(plain, "0123456789") == "" && plain[0] != '0' {
		return scalar{numberScalar, plain}
	}
	f, err := strconv.ParseFloat(plain, 64)
	if err != nil || math.IsInf(f, 0) {
		return scalar{textScalar, text}
	}
	out, err := json.Marshal(f)
	if err != nil {
		return scalar{textScalar, text}
	}
	return scalar{numberScalar, string(out)}
}

// tag applies one of YAML's own tags and tells whether it fits.
func (n *node) tag(tag string) bool {
	plain := &node{text: n.text}
	switch tag {
	case "!!str", "!":
		n.quoted = true
		return true
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.text), ""))
		n.text, n.quoted = string(raw), true
		return err == nil
	case "!!null":
		n.quoted = false
		return plain.scalar().kind == nullScalar
	case "!!bool":
		n.quoted = false
		return plain.scalar().kind == boolScalar
	case "!!int", "!!float":
		n.quoted = false
		return plain.scalar().kind == numberScalar
	}
	return false
}

// value returns the node as Dapr hands it to a component: a scalar as text,
// anything else as JSON text.
func (n *node) value() string {
	if n.kind == scalarNode {
		return n.scalar().text
	}
	out, err := json.Marshal(n.plain())
	if err != nil { // cannot happen: the tree holds texts and checked numbers
		return ""
	}
	return string(out)
}

func (n *node) plain() any {
	switch n.kind {
	case listNode:
		list := make([]any, len(n.list))
		for i, v := range n.list {
			list[i] = v.plain()
		}
		return list
	case tableNode:
		table := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			table[p.key] = p.value.plain()
		}
		return table
	}
	switch s := n.scalar(); s.kind {
	case nullScalar:
		return nil
	case boolScalar:
		return s.text == "true"
	case numberScalar:
		return json.Number(s.text)
	default:
		return s.text
	}
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}
