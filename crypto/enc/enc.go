// Package enc is the document format "dapr.io/enc/v1": a header of three lines,
// then the data in segments of 64 KiB, each sealed on its own.
//
// [Encrypt] and [Decrypt] turn one stream into the other as it is read. The key
// of the data, the file key, is a new one for each document and stands in the
// header, wrapped by a key that only the caller's [WrapFunc] and [UnwrapFunc]
// know.
//
// The package promises that a stream takes the memory of one segment, whatever
// its length; that no byte is given out that was not authenticated; and that a
// document changed, cut short or made longer anywhere is an error. The format
// has one exception to the last: a document cut off right behind its header
// reads as an empty one, because that is what an empty one is.
package enc

import (
	"fmt"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Scheme is the first line of a document.
const Scheme = "dapr.io/enc/v1"

// Sizes of the format, in bytes.
const (
	// SegmentSize is how much data a segment holds; the last may hold less.
	SegmentSize = 64 << 10
	// Overhead is what sealing adds to a segment.
	Overhead = 16
	// MaxHeader bounds the three lines of the header together.
	MaxHeader = 64 << 10
	// FileKeySize is the size of a file key.
	FileKeySize = 32

	prefixSize = 7 // of the nonce
	nonceSize  = 12
)

// Algorithm is how a file key is wrapped; its number stands in the header.
type Algorithm int

// The algorithms.
const (
	// A256KW is AES key wrap (RFC 3394) with a key of 32 bytes.
	A256KW Algorithm = iota + 1
	// A128CBC is AES-CBC without padding, with a key of 16 bytes.
	A128CBC
	// A192CBC is the same with a key of 24 bytes.
	A192CBC
	// A256CBC is the same with a key of 32 bytes.
	A256CBC
	// RSAOAEP256 is RSA-OAEP with SHA-256.
	RSAOAEP256

	algorithms
)

// String returns the name that users write: "A256KW".
func (a Algorithm) String() string {
	if a <= 0 || a >= algorithms {
		return fmt.Sprintf("algorithm %d", int(a))
	}
	return [algorithms]string{"", "A256KW", "A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD", "RSA-OAEP-256"}[a]
}

// ParseAlgorithm reads a name, in any case; AES is A256KW and RSA is
// RSA-OAEP-256. Kind Invalid when it is none.
func ParseAlgorithm(name string) (Algorithm, error) {
	switch upper := strings.ToUpper(name); upper {
	case "AES":
		return A256KW, nil
	case "RSA":
		return RSAOAEP256, nil
	default:
		for a := range algorithms {
			if a > 0 && a.String() == upper {
				return a, nil
			}
		}
	}
	return 0, fault.New(fault.Invalid,
		"key wrap algorithm %.40q is not known; use A256KW, A128CBC-NOPAD, A192CBC-NOPAD, A256CBC-NOPAD or RSA-OAEP-256", name)
}

// Cipher seals the segments; its number stands in the header.
type Cipher int

// The ciphers.
const (
	// AESGCM is AES-GCM with a key of 32 bytes.
	AESGCM Cipher = iota + 1
	// ChaCha20Poly1305 is for machines without AES in hardware.
	ChaCha20Poly1305
)

// String returns the name that users write: "AES-GCM".
func (c Cipher) String() string {
	switch c {
	case AESGCM:
		return "AES-GCM"
	case ChaCha20Poly1305:
		return "CHACHA20-POLY1305"
	}
	return fmt.Sprintf("cipher %d", int(c))
}

// ParseCipher reads a name, in any case; no name is AES-GCM. Kind Invalid when
// it is none.
func ParseCipher(name string) (Cipher, error) {
	switch strings.ToUpper(name) {
	case "", "AES-GCM":
		return AESGCM, nil
	case "CHACHA20-POLY1305":
		return ChaCha20Poly1305, nil
	}
	return 0, fault.New(fault.Invalid, "cipher %.40q is not known; use aes-gcm or chacha20-poly1305", name)
}

// Manifest is what the header says of a document.
type Manifest struct {
	// Key is the name of the key that the file key can be unwrapped with; may
	// be empty.
	Key string
	// Algorithm is how the file key was wrapped.
	Algorithm Algorithm
	// WrappedKey is the wrapped file key.
	WrappedKey []byte
	// Cipher seals the segments.
	Cipher Cipher

	prefix []byte // of the nonces
}

// WrapFunc wraps a file key.
type WrapFunc func(fileKey []byte) (wrapped []byte, err error)

// UnwrapFunc unwraps the file key of a document. The manifest is not
// authenticated yet when it is called.
type UnwrapFunc func(m *Manifest) (fileKey []byte, err error)
