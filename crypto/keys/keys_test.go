package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/fault"
)

// jwk writes a key as a JWK with more members.
func jwk(t *testing.T, material any, kid, more string) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: material, KeyID: kid})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "}") + more + "}"
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func block(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestParse(t *testing.T) {
	t.Parallel()
	private := rsaKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err8 := x509.MarshalPKCS8PrivateKey(private)
	pkix, errX := x509.MarshalPKIXPublicKey(&private.PublicKey)
	sec1, errEC := x509.MarshalECPrivateKey(ec)
	const (
		isPrivate = "an RSA private key"
		isPublic  = "an RSA public key"
		isOther   = "a key that is neither RSA nor symmetric"
	)
	secret := bytes.Repeat([]byte{0xfb}, 32)
	symmetric := func(n int) string { return fmt.Sprintf("a symmetric key of %d bytes", n) }
	rows := []struct {
		name, data string
		format     Format
		want       string
	}{
		{"PKCS 8", block("PRIVATE KEY", pkcs8, err8), Guess, isPrivate},
		{"PKCS 1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private), nil), PEM, isPrivate},
		{"PKCS 1, public", block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&private.PublicKey), nil), Guess, isPublic},
		{"PKIX", block("PUBLIC KEY", pkix, errX), Guess, isPublic},
		{"SEC 1", block("EC PRIVATE KEY", sec1, errEC), Guess, isOther},
		{"text before PEM", "my key\n" + block("PUBLIC KEY", pkix, errX), PEM, isPublic},
		{"JWK, private", jwk(t, private, "", ""), Guess, isPrivate},
		{"JWK, public", jwk(t, &private.PublicKey, "", ""), JWK, isPublic},
		{"JWK, symmetric", jwk(t, secret, "", ""), JWK, symmetric(32)},
		{"JWK, EC", jwk(t, ec, "", ""), JWK, isOther},
		{"bytes", string(secret), Guess, symmetric(32)},
		{"16 bytes that begin like JSON", "{\xff" + string(secret[:14]), Guess, symmetric(16)},
		{"base64", base64.StdEncoding.EncodeToString(secret), Guess, symmetric(32)},
		{"base64 with a line end", base64.StdEncoding.EncodeToString(secret[:16]) + "\r\n", Guess, symmetric(16)},
		{"base64 for URLs", base64.RawURLEncoding.EncodeToString(secret), Guess, symmetric(32)},
		{"letters that could be base64", strings.Repeat("k", 32), Guess, symmetric(24)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k, err := Parse([]byte(row.data), row.format)
			if err != nil || k.String() != row.want {
				t.Fatalf("got %v, %v; want %s", k, err, row.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const marker = "c2VjcmV0LW1hcmtlcg"
	rows := []struct {
		name, data string
		format     Format
	}{
		{"nothing", "", Guess},
		{"a line end", "\n", Guess},
		{"no JWK", marker, JWK},
		{"no PEM", marker, PEM},
		{"half a JWK", `{"kty":"RSA","n":"` + marker + `"`, Guess},
		{"JWK without numbers", `{"kty":"RSA","n":"` + marker + `"}`, JWK},
		{"JWK of no kind", `{"kty":"` + marker + `","k":"` + marker + `"}`, JWK},
		{"JWK whose operations are a number", `{"kty":"oct","k":"` + marker + `","key_ops":7}`, JWK},
		{"PEM of another kind", block("SECRET", []byte(marker), nil), PEM},
		{"PEM of rubbish", block("PRIVATE KEY", []byte(marker), nil), PEM},
		{"certificate of rubbish", block("CERTIFICATE", []byte(marker), nil), Guess},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k, err := Parse([]byte(row.data), row.format)
			if err == nil || fault.KindOf(err) != fault.Invalid {
				t.Fatalf("got %v, %v", k, err)
			}
			if row.name != "JWK of no kind" && strings.Contains(err.Error(), marker) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

func TestParseSet(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte{7}, 32)
	set, err := ParseSet([]byte(`{"keys":[` + strings.Join([]string{
		jwk(t, secret, "one", ""), jwk(t, secret[:16], "one", ""), jwk(t, secret, "", ""),
		`{"kty":"quantum","kid":"odd"}`, jwk(t, secret[:24], "two", ""),
	}, ",") + `]}`))
	if err != nil || len(set) != 3 {
		t.Fatalf("got %v, %v", set, err)
	}
	for name, want := range map[string]string{"one": "a symmetric key of 32 bytes", "two": "a symmetric key of 24 bytes"} {
		if k, err := set.Find(name); err != nil || k.String() != want {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	if _, err := set.Find("three"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a key that is not there: %v", err)
	}
	odd, err := set.Find("odd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := odd.Wrap(enc.A256KW, secret); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "no JWK") {
		t.Errorf("a key of no known kind: %v", err)
	}
	if one, err := ParseSet([]byte(jwk(t, secret, "alone", ""))); err != nil || one["alone"] == nil {
		t.Errorf("one key in place of a set: %v, %v", one, err)
	}
	if none, err := ParseSet([]byte(`{"keys":[]}`)); err != nil || len(none) != 0 {
		t.Errorf("an empty set: %v, %v", none, err)
	}
	for _, bad := range []string{"", "{}", "[]", "null", `{"keys":7}`, `{"keys":[7]}`, `{"keys":[{"kid":7}]}`, `{"keys":`} {
		if got, err := ParseSet([]byte(bad)); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, %v", bad, got, err)
		}
	}
}

func TestKeysDoOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte{7}, 32)
	rows := []struct {
		more         string
		wrap, unwrap bool
	}{
		{``, true, true},
		{`,"use":"enc"`, true, true},
		{`,"use":"sig"`, false, false},
		{`,"key_ops":["wrapKey"]`, true, false},
		{`,"key_ops":["unwrapKey","verify"]`, false, true},
		{`,"key_ops":["encrypt","decrypt"]`, false, false},
		{`,"key_ops":[]`, true, true},
		{`,"key_ops":["wrapKey","unwrapKey"],"use":"sig"`, false, false},
		{`,"alg":"A256KW"`, true, true},
		{`,"alg":"A256CBC-NOPAD"`, false, false},
		{`,"alg":"A256GCM"`, false, false},
	}
	plain, err := Parse([]byte(jwk(t, secret, "", "")), JWK)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := plain.Wrap(enc.A256KW, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		k, err := Parse([]byte(jwk(t, secret, "", row.more)), JWK)
		if err != nil {
			t.Fatal(err)
		}
		_, wrapErr := k.Wrap(enc.A256KW, secret)
		_, unwrapErr := k.Unwrap(enc.A256KW, wrapped)
		for what, got := range map[string]struct {
			err error
			may bool
		}{"wrap": {wrapErr, row.wrap}, "unwrap": {unwrapErr, row.unwrap}} {
			if (got.err == nil) != got.may || got.err != nil && fault.KindOf(got.err) != fault.Invalid {
				t.Errorf("a key with %q: %s: %v", row.more, what, got.err)
			}
		}
	}
}

func TestKeysFitTheirAlgorithm(t *testing.T) {
	t.Parallel()
	private := rsaKey(t)
	fileKey := bytes.Repeat([]byte{9}, enc.FileKeySize)
	algorithms := []enc.Algorithm{enc.A256KW, enc.A128CBC, enc.A192CBC, enc.A256CBC, enc.RSAOAEP256}
	rows := []struct {
		key   *Key
		wraps []enc.Algorithm
	}{
		{&Key{material: make([]byte, 16)}, []enc.Algorithm{enc.A128CBC}},
		{&Key{material: make([]byte, 24)}, []enc.Algorithm{enc.A192CBC}},
		{&Key{material: make([]byte, 32)}, []enc.Algorithm{enc.A256KW, enc.A256CBC}},
		{&Key{material: make([]byte, 20)}, nil},
		{&Key{material: private}, []enc.Algorithm{enc.RSAOAEP256}},
		{&Key{material: &ecdsa.PrivateKey{}}, nil},
	}
	for _, row := range rows {
		for _, a := range algorithms {
			fits := false
			for _, w := range row.wraps {
				fits = fits || w == a
			}
			wrapped, err := row.key.Wrap(a, fileKey)
			if (err == nil) != fits || err != nil && fault.KindOf(err) != fault.Invalid {
				t.Errorf("%v wraps with %v: %v", row.key, a, err)
			}
			if got, err := row.key.Unwrap(a, wrapped); fits && !bytes.Equal(got, fileKey) || (err == nil) != fits {
				t.Errorf("%v unwraps with %v: %v", row.key, a, err)
			}
		}
	}
	public := &Key{material: &private.PublicKey}
	wrapped, err := public.Wrap(enc.RSAOAEP256, fileKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := public.Unwrap(enc.RSAOAEP256, wrapped); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a public key unwraps: %v", err)
	}
	if got, err := (&Key{material: private}).Unwrap(enc.RSAOAEP256, wrapped); err != nil || !bytes.Equal(got, fileKey) {
		t.Errorf("the private key of a public one: %v", err)
	}
	odd := &Key{material: make([]byte, 32)}
	for _, a := range []enc.Algorithm{enc.A256KW, enc.A256CBC} {
		_, wrapErr := odd.Wrap(a, fileKey[:9])
		_, unwrapErr := odd.Unwrap(a, fileKey[:9])
		if fault.KindOf(wrapErr) != fault.Invalid || fault.KindOf(unwrapErr) != fault.Invalid {
			t.Errorf("9 bytes with %v: %v, %v", a, wrapErr, unwrapErr)
		}
	}
}

// The vectors of RFC 3394, 4.6, and of NIST SP 800-38A, F.2.5, whose
// initialization vector goes into the first block.
func TestKnownAnswers(t *testing.T) {
	t.Parallel()
	data := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	kw := &Key{material: data("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")}
	const wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
	if got, err := kw.Wrap(enc.A256KW, data("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")); hex.EncodeToString(got) != wrapped {
		t.Errorf("AES key wrap gives %x, %v", got, err)
	}
	first := data("6bc1bee22e409f96e93d7e117393172a")
	for i := range first {
		first[i] ^= byte(i)
	}
	cbc := &Key{material: data("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")}
	const blocks = "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
	if got, err := cbc.Wrap(enc.A256CBC, append(first, data("ae2d8a571e03ac9c9eb76fac45af8e51")...)); hex.EncodeToString(got) != blocks {
		t.Errorf("AES-CBC gives %x, %v", got, err)
	}
}

func TestKeysPrintNothing(t *testing.T) {
	t.Parallel()
	k := &Key{material: []byte("sesame-sesame-16"), alg: "A256KW"}
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprint(Set{"a": k})} {
		if strings.Contains(text, "sesame") || strings.Contains(text, "115 101 115") {
			t.Errorf("a key prints as %s", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAA","key_ops":["wrapKey"]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := Parse(data, Guess)
		if (k == nil) == (err == nil) || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%v, %v", k, err)
		}
		set, err := ParseSet(data)
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatal(err)
		}
		for _, k := range set { // none must panic, whatever it holds
			wrapped, err := k.Wrap(enc.RSAOAEP256, make([]byte, enc.FileKeySize))
			if err == nil && len(wrapped) == 0 {
				t.Error("a key wraps to nothing")
			}
		}
	})
}
