package cloudevents

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// The parts of a W3C traceparent: version-trace-span-flags.
const (
	traceAt  = 3
	spanAt   = 36
	flagsAt  = 53
	traceLen = 55
)

// ValidTraceParent tells whether s is a traceparent as W3C Trace Context level
// 1 defines it; of versions after 00 it reads what they share with it.
func ValidTraceParent(s string) bool {
	if len(s) < traceLen || s[traceAt-1] != '-' || s[spanAt-1] != '-' || s[flagsAt-1] != '-' {
		return false
	}
	switch version := s[:traceAt-1]; {
	case !isLowerHex(version) || version == "ff":
		return false
	case version == "00" && len(s) != traceLen:
		return false
	case len(s) > traceLen && s[traceLen] != '-':
		return false
	}
	trace, span, flags := s[traceAt:spanAt-1], s[spanAt:flagsAt-1], s[flagsAt:traceLen]
	return isLowerHex(trace) && !isZeros(trace) && isLowerHex(span) && !isZeros(span) && isLowerHex(flags)
}

// NewTraceParent begins a trace: random ids, sampled.
func NewTraceParent() string {
	b := append(make([]byte, 0, traceLen), "00-"...)
	b = append(appendRandom(b, 16), '-')
	b = append(appendRandom(b, 8), "-01"...)
	return string(b)
}

// ChildTraceParent returns the traceparent of a new span in the trace of
// parent, with its flags. A parent that is not valid begins a new trace.
func ChildTraceParent(parent string) string {
	if !ValidTraceParent(parent) {
		return NewTraceParent()
	}
	b := append(make([]byte, 0, traceLen), "00-"...)
	b = append(b, parent[traceAt:spanAt]...)
	b = appendRandom(b, 8)
	return string(append(b, parent[flagsAt-1:traceLen]...))
}

// TraceID returns the 32 hexadecimal digits of a valid traceparent that name
// its trace, and SpanID the 16 that name the span; nothing for any other.
func TraceID(traceparent string) string {
	if !ValidTraceParent(traceparent) {
		return ""
	}
	return traceparent[traceAt : spanAt-1]
}

// SpanID returns the 16 hexadecimal digits of a valid traceparent that name
// its span; nothing for any other.
func SpanID(traceparent string) string {
	if !ValidTraceParent(traceparent) {
		return ""
	}
	return traceparent[spanAt : flagsAt-1]
}

// isLowerHex has no branch for each digit: what is random is guessed wrong half of
// the time, and that took longer than all the rest.
func isLowerHex(s string) bool {
	bad := 0
	for i := range len(s) {
		bad |= (9 - int(s[i]-'0')) >> 8 & ((5 - int(s[i]-'a')) >> 8)
	}
	return bad == 0
}

func isZeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// appendRandom appends the hexadecimal form of n random bytes, up to 16 and a
// multiple of 8, that are not all zero.
func appendRandom(dst []byte, n int) []byte {
	var b [16]byte
	for at := 0; at < n; at += 8 {
		binary.BigEndian.PutUint64(b[at:], max(rand.Uint64(), 1))
	}
	return hex.AppendEncode(dst, b[:n])
}

// NewID returns a random UUID (version 4). It comes from the standard library's
// generator that the operating system seeds: unique, but not a secret.
func NewID() string {
	var b [36]byte
	return string(appendUUID(b[:0]))
}

func appendUUID(dst []byte) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	dst = hex.AppendEncode(dst, b[:4])
	dst = hex.AppendEncode(append(dst, '-'), b[4:6])
	dst = hex.AppendEncode(append(dst, '-'), b[6:8])
	dst = hex.AppendEncode(append(dst, '-'), b[8:10])
	return hex.AppendEncode(append(dst, '-'), b[10:])
}
