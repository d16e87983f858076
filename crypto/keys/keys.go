// Package keys reads the keys of the crypto components and wraps file keys with
// them.
//
// [Parse] reads one key from a file: PEM, a JWK, or the bytes of a symmetric key,
// bare or in base64. [ParseSet] reads a JSON Web Key Set. [Key.Wrap] and
// [Key.Unwrap] are the algorithms of package enc.
//
// The package promises that a key does only what its use, key_ops and alg allow,
// and that neither an error nor a printed key shows any of a key's bytes. The
// primitives are those of the standard library and of go-jose.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"

	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/fault"
)

// Key is one key. It does not change.
type Key struct {
	material any // []byte, *rsa.PrivateKey, *rsa.PublicKey, or a kind that cannot wrap
	alg, use string
	ops      []string
	broken   error // why the key of a set cannot be used
}

// String says what kind of key it is, and nothing of its bytes.
func (k *Key) String() string {
	switch m := k.material.(type) {
	case []byte:
		return fmt.Sprintf("a symmetric key of %d bytes", len(m))
	case *rsa.PrivateKey:
		return "an RSA private key"
	case *rsa.PublicKey:
		return "an RSA public key"
	}
	return "a key that is neither RSA nor symmetric"
}

// GoString is String, so that %#v shows no more.
func (k *Key) GoString() string { return k.String() }

// Wrap wraps a file key. Kind Invalid when the key cannot do it.
func (k *Key) Wrap(a enc.Algorithm, fileKey []byte) ([]byte, error) {
	if err := k.allows("wrapKey", a); err != nil {
		return nil, err
	}
	if a == enc.RSAOAEP256 {
		public, ok := k.material.(*rsa.PublicKey)
		if private, is := k.material.(*rsa.PrivateKey); is {
			public, ok = &private.PublicKey, true
		}
		if !ok {
			return nil, k.unfit(a)
		}
		wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, fileKey, nil)
		return wrapped, invalid(err, "wrap with %v", a)
	}
	block, err := k.block(a)
	switch {
	case err != nil:
		return nil, err
	case a == enc.A256KW:
		wrapped, err := josecipher.KeyWrap(block, fileKey)
		return wrapped, invalid(err, "wrap with %v", a)
	case len(fileKey)%aes.BlockSize != 0:
		return nil, fault.New(fault.Invalid, "wrap with %v: a key of %d bytes needs padding", a, len(fileKey))
	}
	wrapped := make([]byte, len(fileKey))
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(wrapped, fileKey)
	return wrapped, nil
}

// Unwrap is the reverse of Wrap. Kind Invalid when the key cannot do it, or is
// not the one; AES-CBC cannot tell, and returns something else.
func (k *Key) Unwrap(a enc.Algorithm, wrapped []byte) ([]byte, error) {
	if err := k.allows("unwrapKey", a); err != nil {
		return nil, err
	}
	if a == enc.RSAOAEP256 {
		private, ok := k.material.(*rsa.PrivateKey)
		if !ok {
			return nil, k.unfit(a)
		}
		fileKey, err := rsa.DecryptOAEP(sha256.New(), nil, private, wrapped, nil)
		return fileKey, invalid(err, "unwrap with %v", a)
	}
	block, err := k.block(a)
	switch {
	case err != nil:
		return nil, err
	case a == enc.A256KW:
		fileKey, err := josecipher.KeyUnwrap(block, wrapped)
		return fileKey, invalid(err, "unwrap with %v", a)
	case len(wrapped)%aes.BlockSize != 0:
		return nil, fault.New(fault.Invalid, "unwrap with %v: %d bytes are no whole blocks", a, len(wrapped))
	}
	fileKey := make([]byte, len(wrapped))
	cipher.NewCBCDecrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(fileKey, wrapped)
	return fileKey, nil
}

func invalid(err error, format string, args ...any) error {
	return fault.As(fault.Invalid, fault.Wrap(err, format, args...))
}

// allows holds an operation against what the key says of itself.
func (k *Key) allows(op string, a enc.Algorithm) error {
	switch {
	case k.broken != nil:
		return k.broken
	case len(k.ops) > 0 && !slices.Contains(k.ops, op):
		return fault.New(fault.Invalid, "use key: its key_ops do not have %s", op)
	case k.use != "" && k.use != "enc":
		return fault.New(fault.Invalid, `use key: its use is %q, not "enc"`, k.use)
	case k.alg != "" && k.alg != a.String():
		return fault.New(fault.Invalid, "use key: it is for %s, not %v", k.alg, a)
	}
	return nil
}

// block makes the block cipher of a symmetric algorithm. CBC runs without an
// initialization vector of its own: the format has no room for one, and what is
// wrapped is random and never wrapped twice.
func (k *Key) block(a enc.Algorithm) (cipher.Block, error) {
	sizes := map[enc.Algorithm]int{enc.A256KW: 32, enc.A128CBC: 16, enc.A192CBC: 24, enc.A256CBC: 32}
	secret, ok := k.material.([]byte)
	if !ok || len(secret) != sizes[a] {
		return nil, k.unfit(a)
	}
	return aes.NewCipher(secret)
}

func (k *Key) unfit(a enc.Algorithm) error {
	return fault.New(fault.Invalid, "use key: %v does not do %v", k, a)
}
