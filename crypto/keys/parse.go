package keys

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/penstock-io/penstock/fault"
)

// Format is what a key is written in.
type Format int

// The formats.
const (
	// Guess tells by the content.
	Guess Format = iota
	// JWK is one JSON Web Key.
	JWK
	// PEM is PKCS #1, PKCS #8, SEC 1, PKIX or a certificate in PEM.
	PEM
)

// Parse reads one key. Kind Invalid when it is none. Guessing takes a symmetric
// key for base64 when it can be that, as Dapr does: a key of 32 letters and
// digits is the 24 bytes they stand for.
func Parse(data []byte, f Format) (*Key, error) {
	if f == Guess {
		bare := slices.Contains([]int{16, 24, 32}, len(data))
		switch {
		case bytes.HasPrefix(data, []byte("{")) && !bare:
			f = JWK
		case bytes.HasPrefix(data, []byte("-----")):
			f = PEM
		}
	}
	switch f {
	case JWK:
		return parseJWK(data)
	case PEM:
		return parsePEM(data)
	}
	secret := symmetric(data)
	if len(secret) == 0 {
		return nil, fault.New(fault.Invalid, "read key: it is empty")
	}
	return &Key{material: secret}, nil
}

// symmetric reads the bytes of a symmetric key.
func symmetric(data []byte) []byte {
	text := bytes.TrimRight(data, "\r\n=")
	for _, form := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if key, err := form.AppendDecode(nil, text); err == nil {
			return key
		}
	}
	return bytes.Clone(data)
}

// parsePEM reads the first block.
func parsePEM(data []byte) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fault.New(fault.Invalid, "read key: it is not PEM")
	}
	var m any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		m, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		m, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		m, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY":
		m, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		m, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			m = c.PublicKey
		}
	default:
		return nil, fault.New(fault.Invalid, "read key: a PEM block of type %.40q is not read", block.Type)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "read key: the PEM block %q cannot be read: %w", block.Type, err)
	}
	return &Key{material: m}, nil
}

func parseJWK(data []byte) (*Key, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(data); err != nil {
		return nil, fault.New(fault.Invalid, "read key: it is no JWK that can be used: %w", err)
	}
	var more struct {
		Ops []string `json:"key_ops"` // go-jose does not read them
	}
	if err := json.Unmarshal(data, &more); err != nil {
		return nil, fault.New(fault.Invalid, "read key: its key_ops are no list of names")
	}
	return &Key{material: key.Key, alg: key.Algorithm, use: key.Use, ops: more.Ops}, nil
}

// Set is the keys of a JSON Web Key Set by their kid. It does not change.
type Set map[string]*Key

// Find returns a key. Kind NotFound when there is none of that name.
func (s Set) Find(name string) (*Key, error) {
	if k, ok := s[name]; ok {
		return k, nil
	}
	return nil, fault.New(fault.NotFound, "find key %q: the key set has none of that kid", name)
}

// ParseSet reads a key set, or one JWK as a set of one. Keys without a kid, which
// nobody could name, are left out; of two with one kid the first counts. A key
// that cannot be read is an error when it is used. Kind Invalid when the data is
// no set.
func ParseSet(data []byte) (Set, error) {
	var doc struct {
		Keys *[]json.RawMessage `json:"keys"`
		Type string             `json:"kty"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fault.New(fault.Invalid, "read key set: it is not JSON of the right form: %w", err)
	}
	list := []json.RawMessage{data}
	switch {
	case doc.Keys != nil:
		list = *doc.Keys
	case doc.Type == "":
		return nil, fault.New(fault.Invalid, `read key set: it has no "keys"`)
	}
	set := make(Set, len(list))
	for i, raw := range list {
		var id struct {
			Kid string `json:"kid"`
		}
		if err := json.Unmarshal(raw, &id); err != nil {
			return nil, fault.New(fault.Invalid, "read key set: entry %d is no key", i)
		}
		if _, twice := set[id.Kid]; twice || id.Kid == "" {
			continue
		}
		k, err := parseJWK(raw)
		if err != nil {
			k = &Key{broken: fault.As(fault.Invalid, fmt.Errorf("use key: %w", err))}
		}
		set[id.Kid] = k
	}
	return set, nil
}
