//go:build services

package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dapr/components-contrib/crypto"
	"github.com/dapr/components-contrib/crypto/jwks"
	"github.com/dapr/components-contrib/metadata"
	kitcrypto "github.com/dapr/kit/crypto"
	"github.com/dapr/kit/logger"
	encv1 "github.com/dapr/kit/schemes/enc/v1"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// The documents that both programs write have names like
// dapr-A256KW-AES-GCM-100.enc; the last is the size of the data, which is that
// of cryptoData.
const cryptoFolder = "testdata/crypto"

// cryptoKeys are the keys of testdata/crypto/keys.json, by algorithm.
var cryptoKeys = map[encv1.KeyAlgorithm]string{
	encv1.KeyAlgorithmAES256KW: "aes256", encv1.KeyAlgorithmAES128CBC: "aes128", encv1.KeyAlgorithmAES192CBC: "aes192",
	encv1.KeyAlgorithmAES256CBC: "aes256", encv1.KeyAlgorithmRSAOAEP256: "rsa",
}

// cryptoData is data that is the same each time.
func cryptoData(size int) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(i*i>>3 ^ i>>8)
	}
	return out
}

// stockKeys wraps as Dapr does, with its own component.
type stockKeys struct {
	component crypto.SubtleCrypto
	set       jwk.Set
}

func newStockKeys(t *testing.T) *stockKeys {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cryptoFolder, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	k := &stockKeys{component: jwks.NewJWKSCrypto(logger.NewLogger("stock"))}
	if k.set, err = jwk.Parse(text); err != nil {
		t.Fatal(err)
	}
	if err := k.component.Init(t.Context(), crypto.Metadata{Base: metadata.Base{Properties: map[string]string{"jwks": string(text)}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c, ok := k.component.(io.Closer); ok {
			_ = c.Close()
		}
	})
	return k
}

// wrap uses the component; for AES-CBC, which that refuses, the library below it.
func (k *stockKeys) wrap(ctx context.Context) encv1.WrapKeyFn {
	return func(plain []byte, algorithm, name string, nonce []byte) ([]byte, []byte, error) {
		if strings.HasSuffix(algorithm, "CBC-NOPAD") {
			key, _ := k.set.LookupKeyID(name)
			return kitcrypto.EncryptSymmetric(plain, algorithm, key, make([]byte, 16), nil)
		}
		key, err := jwk.FromRaw(plain)
		if err != nil {
			return nil, nil, err
		}
		return k.component.WrapKey(ctx, key, algorithm, name, nonce, nil)
	}
}

func (k *stockKeys) unwrap(ctx context.Context) encv1.UnwrapKeyFn {
	return func(wrapped []byte, algorithm, name string, nonce, tag []byte) ([]byte, error) {
		if strings.HasSuffix(algorithm, "CBC-NOPAD") {
			key, _ := k.set.LookupKeyID(name)
			return kitcrypto.DecryptSymmetric(wrapped, algorithm, key, make([]byte, 16), nil, nil)
		}
		key, err := k.component.UnwrapKey(ctx, wrapped, algorithm, name, nonce, tag, nil)
		if err != nil {
			return nil, err
		}
		var plain []byte
		err = key.Raw(&plain)
		return plain, err
	}
}

// crypt asks Penstock to encrypt or to decrypt.
func (p *penstock) crypt(t *testing.T, verb string, body []byte, headers map[string]string) []byte {
	t.Helper()
	url := strings.TrimSuffix(p.api, "/v1.0") + "/v1.0-alpha1/crypto/keys/" + verb
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %.200s, %v", verb, resp.StatusCode, out, err)
	}
	return out
}

// What either of the two has encrypted, the other decrypts.
func TestCrypto(t *testing.T) {
	stock := newStockKeys(t)
	keys, err := filepath.Abs(filepath.Join(cryptoFolder, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	yaml := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: keys}\nspec:\n  type: crypto.dapr.jwks\n  version: v1\n  metadata:\n  - {name: jwks, value: %q}\n", keys)
	if err := os.WriteFile(filepath.Join(dir, "keys.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &penstock{}
	p.start(t, []string{
		"serve", "--app-id", "interop", "--resources-path", dir, "--data-dir", filepath.Join(dir, "data"), "--dapr-grpc-port", "0",
	}, "/healthz/outbound")
	for algorithm, name := range cryptoKeys {
		for _, cipher := range []encv1.Cipher{encv1.CipherAESGCM, encv1.CipherChaCha20Poly1305} {
			for _, size := range []int{0, 1, 100, 65535, 65536, 65537, 131072, 6<<20 + 5} {
				t.Run(fmt.Sprintf("%s %s %d", algorithm, cipher, size), func(t *testing.T) {
					cryptoCase{stock, p, algorithm, name, cipher, cryptoData(size)}.run(t)
				})
			}
		}
	}
}

type cryptoCase struct {
	stock     *stockKeys
	penstock  *penstock
	algorithm encv1.KeyAlgorithm
	name      string
	cipher    encv1.Cipher
	data      []byte
}

func (c cryptoCase) run(t *testing.T) {
	r, err := encv1.Encrypt(bytes.NewReader(c.data), encv1.EncryptOptions{
		WrapKeyFn: c.stock.wrap(t.Context()), Algorithm: c.algorithm, KeyName: c.name, Cipher: &c.cipher,
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.penstock.crypt(t, "decrypt", theirs, nil); !bytes.Equal(got, c.data) {
		t.Errorf("Penstock decrypts what Dapr has encrypted to %d other bytes", len(got))
	}
	ours := c.penstock.crypt(t, "encrypt", c.data, map[string]string{
		"dapr-key-name": c.name, "dapr-key-wrap-algorithm": string(c.algorithm), "dapr-data-encryption-cipher": string(c.cipher),
	})
	if r, err = encv1.Decrypt(bytes.NewReader(ours), encv1.DecryptOptions{UnwrapKeyFn: c.stock.unwrap(t.Context())}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, c.data) {
		t.Errorf("Dapr decrypts what Penstock has encrypted to %d bytes, %v", len(got), err)
	}
	if len(ours) != len(theirs) {
		t.Errorf("a document of %d bytes, where Dapr makes one of %d", len(ours), len(theirs))
	}
	if *update && (len(c.data) == 0 || len(c.data) == 100 || len(c.data) == 65537 && c.name == "rsa" && c.cipher == encv1.CipherAESGCM) {
		for who, doc := range map[string][]byte{"dapr": theirs, "penstock": ours} {
			path := filepath.Join(cryptoFolder, fmt.Sprintf("%s-%s-%s-%d.enc", who, c.algorithm, c.cipher, len(c.data)))
			if err := os.WriteFile(path, doc, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What the pages say of AES-CBC holds: Dapr's component refuses it.
func TestStockRefusesCBC(t *testing.T) {
	stock := newStockKeys(t)
	key, err := jwk.FromRaw(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stock.component.WrapKey(t.Context(), key, "A256CBC-NOPAD", "aes256", nil, nil); err == nil {
		t.Error("it wraps without a nonce, which is all that the API gives it")
	}
}
