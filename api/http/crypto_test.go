package http_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/crypto/enc"
)

// keySet has a key for each of two algorithms.
const keySet = `{"keys":[
	{"kty":"oct","kid":"kw","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
	{"kty":"oct","kid":"cbc","k":"AAECAwQFBgcICQoLDA0ODw"}
]}`

func TestEncryptAndDecrypt(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	rows := map[string]struct {
		encrypt, decrypt []string // headers
		manifest         string   // that the document has
	}{
		"AES key wrap": {[]string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "A256KW"}, nil, `{"k":"kw","kw":1,`},
		"alias":        {[]string{"Dapr-Key-Name", "kw", "Dapr-Key-Wrap-Algorithm", "aes"}, nil, `"cph":1,`},
		"AES-CBC":      {[]string{"dapr-key-name", "cbc", "dapr-key-wrap-algorithm", "A128CBC-NOPAD"}, nil, `{"k":"cbc","kw":2,`},
		"cipher": {
			[]string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES", "dapr-data-encryption-cipher", "chacha20-poly1305"}, nil, `"cph":2,`,
		},
		"no name": {
			[]string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES", "dapr-omit-decryption-key-name", "true", "dapr-decryption-key-name", "x"},
			[]string{"dapr-key-name", "kw"},
			`{"kw":1,`,
		},
		"another name": {
			[]string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES", "dapr-decryption-key-name", "other/1"},
			[]string{"dapr-key-name", "kw"},
			`{"k":"other/1","kw":1,`,
		},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const data = "attack at dawn"
			w := ask(h, "PUT", "/v1.0-alpha1/crypto/keys/encrypt", data, row.encrypt...)
			doc := w.Body.String()
			if w.Code != 200 || w.Header().Get("Content-Type") != "application/octet-stream" || !strings.Contains(doc, row.manifest) || strings.Contains(doc, data) {
				t.Fatalf("encrypt: %d %v %q", w.Code, w.Header(), doc)
			}
			if w = ask(h, "PUT", "/v1.0-alpha1/crypto/keys/decrypt", doc, row.decrypt...); w.Code != 200 || w.Body.String() != data {
				t.Errorf("decrypt: %d %q", w.Code, w.Body)
			}
		})
	}
}

func TestCryptoErrors(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	const encrypt, decrypt = "/v1.0-alpha1/crypto/keys/encrypt", "/v1.0-alpha1/crypto/keys/decrypt"
	good := []string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES"}
	doc := ask(h, "PUT", encrypt, "data", good...).Body.String()
	unnamed := ask(h, "PUT", encrypt, "data", append(good, "dapr-omit-decryption-key-name", "1")...).Body.String()
	rows := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     string
	}{
		{"no such component", "PUT", "/v1.0-alpha1/crypto/other/encrypt", "x", good, 400, "ERR_CRYPTO_PROVIDER_NOT_FOUND"},
		{"no key", "PUT", encrypt, "x", good[2:], 400, "ERR_BAD_REQUEST"},
		{"no algorithm", "PUT", encrypt, "x", good[:2], 400, "ERR_BAD_REQUEST"},
		{"a strange algorithm", "PUT", encrypt, "x", []string{"dapr-key-name", "kw", "dapr-key-wrap-algorithm", "ROT13"}, 500, "ERR_CRYPTO"},
		{"a strange cipher", "PUT", encrypt, "x", append(good, "dapr-data-encryption-cipher", "rot13"), 500, "ERR_CRYPTO"},
		{"no such key", "PUT", encrypt, "x", []string{"dapr-key-name", "none", "dapr-key-wrap-algorithm", "AES"}, 500, "ERR_CRYPTO"},
		{"a key of another kind", "PUT", encrypt, "x", []string{"dapr-key-name", "cbc", "dapr-key-wrap-algorithm", "RSA"}, 500, "ERR_CRYPTO"},
		{"wrong key", "PUT", decrypt, doc, []string{"dapr-key-name", "cbc"}, 500, "ERR_CRYPTO"},
		{"no such key to decrypt", "PUT", decrypt, doc, []string{"dapr-key-name", "none"}, 500, "ERR_CRYPTO"},
		{"a document without the name of its key", "PUT", decrypt, unnamed, nil, 500, "ERR_CRYPTO"},
		{"no document", "PUT", decrypt, "hello", nil, 500, "ERR_CRYPTO"},
		{"nothing", "PUT", decrypt, "", nil, 500, "ERR_CRYPTO"},
		{"a changed document", "PUT", decrypt, doc[:len(doc)-1] + string([]byte{doc[len(doc)-1] ^ 1}), nil, 500, "ERR_CRYPTO"},
		{"a document cut short", "PUT", decrypt, doc[:len(doc)-1], nil, 500, "ERR_CRYPTO"},
		{"another method", "POST", encrypt, "x", good, 405, "ERR_METHOD_NOT_ALLOWED"},
		{"another verb", "PUT", "/v1.0-alpha1/crypto/keys/rot13", "x", good, 404, "ERR_NOT_FOUND"},
		{"low-level verbs", "POST", "/v1.0-alpha1/subtlecrypto/keys/encrypt", "{}", nil, 501, "ERR_API_UNIMPLEMENTED"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := ask(h, row.method, row.path, row.body, row.header...)
			if w.Code != row.status || code(t, w) != row.code {
				t.Errorf("%d %s; want %d %s", w.Code, w.Body, row.status, row.code)
			}
		})
	}
	w := ask((&instance{empty: true}).handler(apihttp.Options{}), "PUT", encrypt, "x", good...)
	if w.Code != 500 || code(t, w) != "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED" {
		t.Errorf("without any component: %d %s", w.Code, w.Body)
	}
	denied := start(t).limited(apihttp.Options{}, api.Surface{Denied: []api.Rule{{Name: "crypto", Version: "v1.0-alpha1", Protocol: "http"}}})
	if w := ask(denied, "PUT", encrypt, "x", good...); w.Code != 404 || code(t, w) != "ERR_API_DENIED" {
		t.Errorf("where the API is denied: %d %s", w.Code, w.Body)
	}
}

// noise is a body of any length that costs nothing; it fails at its end if it is
// to.
type noise struct {
	left int64
	fail error
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		if n.fail != nil {
			return 0, n.fail
		}
		return 0, io.EOF
	}
	size := min(int64(len(p)), n.left)
	for i := range p[:size] {
		p[i] = 'n'
	}
	n.left -= size
	return int(size), nil
}

// put sends a stream to a server and returns the answer, to be read.
func put(t *testing.T, url string, body io.Reader, header ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", url, body)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return http.DefaultClient.Do(r)
}

// count counts what is written to it and notes how large the heap got.
type count struct {
	n, next int64
	most    uint64
}

func (c *count) Write(p []byte) (int, error) {
	if c.n += int64(len(p)); c.n >= c.next {
		c.next += 16 << 20
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		c.most = max(c.most, m.HeapInuse)
	}
	return len(p), nil
}

func TestLongStreams(t *testing.T) { // not parallel: it looks at the heap
	s := httptest.NewServer(start(t).handler(apihttp.Options{}))
	defer s.Close()
	const size = 200 << 20 // fifty times the limit of bodies
	sealed, err := put(t, s.URL+"/v1.0-alpha1/crypto/keys/encrypt", &noise{left: size}, "dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES")
	must(t, err)
	defer sealed.Body.Close()
	plain, err := put(t, s.URL+"/v1.0-alpha1/crypto/keys/decrypt", sealed.Body)
	must(t, err)
	defer plain.Body.Close()
	var c count
	if _, err := io.Copy(&c, plain.Body); err != nil || c.n != size || plain.StatusCode != 200 || sealed.StatusCode != 200 {
		t.Fatalf("%d bytes of %d, status %d and %d, %v", c.n, size, sealed.StatusCode, plain.StatusCode, err)
	}
	if c.most > 96<<20 {
		t.Errorf("the heap got as large as %d bytes while %d went by", c.most, size)
	}
}

// A client that reads only after it has sent all is served up to the bound.
func TestWholeAnswers(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	w := ask(h, "PUT", "/v1.0-alpha1/crypto/keys/encrypt", string(data), "dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES")
	if w.Code != 200 || w.Header().Get("Content-Length") == "" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	doc := w.Body.Bytes()
	if w := ask(h, "PUT", "/v1.0-alpha1/crypto/keys/decrypt", string(doc)); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), data) {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
	doc[len(doc)-1] ^= 1
	if w := ask(h, "PUT", "/v1.0-alpha1/crypto/keys/decrypt", string(doc)); w.Code != 500 || code(t, w) != "ERR_CRYPTO" {
		t.Errorf("changed at its end: %d, %d bytes", w.Code, w.Body.Len())
	}
}

// Nobody takes a stream that went wrong for whole.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(start(t).handler(apihttp.Options{}))
	defer s.Close()
	const size = 20 << 20
	encrypt := func(body io.Reader) (*http.Response, error) {
		return put(t, s.URL+"/v1.0-alpha1/crypto/keys/encrypt", body, "dapr-key-name", "kw", "dapr-key-wrap-algorithm", "AES")
	}
	sealed, err := encrypt(&noise{left: size})
	must(t, err)
	doc, err := io.ReadAll(sealed.Body)
	must(t, err)
	must(t, sealed.Body.Close())
	at := bytes.LastIndexByte(doc[:400], '\n') + 10*(enc.SegmentSize+enc.Overhead)
	for name, bad := range map[string][]byte{"cut short": doc[:len(doc)-1], "changed at its end": append(bytes.Clone(doc[:len(doc)-1]), doc[len(doc)-1]^1)} {
		plain, err := put(t, s.URL+"/v1.0-alpha1/crypto/keys/decrypt", bytes.NewReader(bad))
		must(t, err)
		got, err := io.ReadAll(plain.Body)
		if err == nil || plain.StatusCode != 200 || len(got) >= size {
			t.Errorf("%s: status %d, %d bytes, %v", name, plain.StatusCode, len(got), err)
		}
		must(t, plain.Body.Close())
	}
	early := bytes.Clone(doc)
	early[at] ^= 1
	plain, err := put(t, s.URL+"/v1.0-alpha1/crypto/keys/decrypt", bytes.NewReader(early))
	must(t, err)
	if text, _ := io.ReadAll(plain.Body); plain.StatusCode != 500 || !strings.Contains(string(text), "ERR_CRYPTO") {
		t.Errorf("changed near its beginning: status %d, %.100s", plain.StatusCode, text)
	}
	must(t, plain.Body.Close())
	gone := errors.New("client is gone")
	if resp, err := encrypt(&noise{left: size, fail: gone}); err == nil {
		if _, err = io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("a request that broke off was answered as if it were whole")
		}
		must(t, resp.Body.Close())
	}
}
