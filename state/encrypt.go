package state

import (
	"bytes"
	"crypto/aes"
	gocipher "crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// cipher encrypts the values of one store. What is stored is the nonce and the
// sealed value in base64, "||", and the name of the secret that the key came
// from, so that a value tells which of two keys opens it.
type cipher struct {
	name string // of the key that seals
	keys map[string]gocipher.AEAD
}

// newCipher makes the cipher of a component's metadata; nil when it has no
// keys. A key must come from a secret store: its name there is written beside
// each value.
func newCipher(items []config.Item) (*cipher, error) {
	c := &cipher{keys: map[string]gocipher.AEAD{}}
	for _, it := range items {
		primary := strings.EqualFold(it.Name, "primaryEncryptionKey")
		if !primary && !strings.EqualFold(it.Name, "secondaryEncryptionKey") {
			continue
		}
		if it.SecretRef == nil {
			return nil, component.OptionErrorf(it.Name, "must be a secretKeyRef")
		}
		aead, err := aeadOf(it.Value)
		if err != nil {
			return nil, component.OptionErrorf(it.Name, "%v", err)
		}
		if primary {
			c.name = it.SecretRef.Name
		}
		if _, taken := c.keys[it.SecretRef.Name]; !taken || primary {
			c.keys[it.SecretRef.Name] = aead
		}
	}
	switch {
	case len(c.keys) == 0:
		return nil, nil
	case c.name == "":
		return nil, component.OptionErrorf("secondaryEncryptionKey", "needs a primaryEncryptionKey beside it")
	}
	return c, nil
}

func aeadOf(key string) (gocipher.AEAD, error) {
	raw, err := hex.DecodeString(key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "must be 16, 24 or 32 bytes in hexadecimal")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fault.New(fault.Invalid, "must be 16, 24 or 32 bytes in hexadecimal, not %d", len(raw))
	}
	return gocipher.NewGCM(block)
}

// seal encrypts a value.
func (c *cipher) seal(value []byte) ([]byte, error) {
	aead := c.keys[c.name]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	sealed := aead.Seal(nonce, nonce, value, nil)
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(sealed))+len(separator)+len(c.name))
	out = base64.StdEncoding.AppendEncode(out, sealed)
	return append(append(out, separator...), c.name...), nil
}

// open decrypts a value.
func (c *cipher) open(value []byte) ([]byte, error) {
	at := bytes.LastIndex(value, []byte(separator))
	if at < 0 {
		return nil, fault.New(fault.Invalid, "decrypt value: it is not encrypted")
	}
	name := string(value[at+len(separator):])
	aead, ok := c.keys[name]
	if !ok {
		return nil, fault.New(fault.Invalid, "decrypt value: no key named %q is configured", short(name))
	}
	sealed, err := base64.StdEncoding.AppendDecode(nil, value[:at])
	if err != nil || len(sealed) < aead.NonceSize() {
		return nil, fault.New(fault.Invalid, "decrypt value: it is damaged")
	}
	out, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "decrypt value: it is damaged, or the key named %q is another one", short(name))
	}
	return out, nil
}
