package crypto_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/crypto/keys"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// ring is a driver that has a set of keys, and fails as often as it is to.
type ring struct {
	set   keys.Set
	fail  error
	times int
}

func (r *ring) failing() error {
	if r.times == 0 {
		return nil
	}
	r.times--
	return r.fail
}

func (r *ring) WrapKey(_ context.Context, name string, a enc.Algorithm, fileKey []byte) ([]byte, error) {
	k, err := r.set.Find(name)
	if err = errors.Join(r.failing(), err); err != nil {
		return nil, err
	}
	return k.Wrap(a, fileKey)
}

func (r *ring) UnwrapKey(_ context.Context, name string, a enc.Algorithm, wrapped []byte) ([]byte, error) {
	k, err := r.set.Find(name)
	if err = errors.Join(r.failing(), err); err != nil {
		return nil, err
	}
	return k.Unwrap(a, wrapped)
}

func (r *ring) Close(context.Context) error { return nil }

type noOptions struct{}

const (
	folder = "../test/interop/testdata/crypto"
	token  = "tok-123456" // of the component
)

func newRing(tb testing.TB) *ring {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "keys.json"))
	if err != nil {
		tb.Fatal(err)
	}
	set, err := keys.ParseSet(text)
	if err != nil {
		tb.Fatal(err)
	}
	return &ring{set: set}
}

func provider(tb testing.TB, r *ring) *crypto.Provider {
	tb.Helper()
	def := crypto.Define("ring", component.About{}, func(context.Context, component.Env, noOptions) (crypto.Driver, error) { return r, nil })
	p, err := crypto.New(def, component.Env{Name: "keys", Logger: slog.New(slog.DiscardHandler)}, config.Component{
		Name: "keys", Type: "crypto.ring", Metadata: []config.Item{{Name: "token", Value: token, Secret: true}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func opened(tb testing.TB, r *ring) *crypto.Provider {
	tb.Helper()
	p := provider(tb, r)
	if err := p.Instance().Run(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = p.Instance().Close(context.WithoutCancel(tb.Context())) })
	return p
}

func all(s *enc.Stream, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

// What Dapr's own components and library have encrypted, and what Penstock had
// when Dapr could read it, is read without either.
func TestKeptDocuments(t *testing.T) {
	t.Parallel()
	p := opened(t, newRing(t))
	files, err := filepath.Glob(filepath.Join(folder, "*.enc"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".enc")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			size, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i*i>>3 ^ i>>8)
			}
			if got, err := all(p.Decrypt(t.Context(), "", bytes.NewReader(doc))); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), size, err)
			}
			if _, err := all(p.Decrypt(t.Context(), "aes128", bytes.NewReader(doc))); !strings.Contains(name, "A128CBC") && fault.KindOf(err) != fault.Invalid {
				t.Errorf("with another key: %v", err)
			}
			doc[len(doc)-1] ^= 1
			if _, err := all(p.Decrypt(t.Context(), "", bytes.NewReader(doc))); fault.KindOf(err) != fault.Invalid {
				t.Errorf("with its last bit changed: %v", err)
			}
		})
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	p := opened(t, newRing(t))
	rows := map[string]struct {
		request crypto.Request
		name    string // in the document
		kind    fault.Kind
		text    string
	}{
		"plain":            {request: crypto.Request{Key: "aes256", Algorithm: "aes"}, name: `"k":"aes256"`},
		"another name":     {request: crypto.Request{Key: "aes256", Algorithm: "A256KW", DecryptionKey: "x/2"}, name: `"k":"x/2"`},
		"no name":          {request: crypto.Request{Key: "aes256", Algorithm: "A256KW", DecryptionKey: "x", OmitKey: true}, name: `{"kw":1`},
		"without key":      {request: crypto.Request{Algorithm: "A256KW"}, kind: fault.Invalid, text: "name of the key is missing"},
		"no algorithm":     {request: crypto.Request{Key: "aes256"}, kind: fault.Invalid, text: "use A256KW"},
		"no cipher":        {request: crypto.Request{Key: "aes256", Algorithm: "AES", Cipher: "rot13"}, kind: fault.Invalid, text: "use aes-gcm"},
		"missing key":      {request: crypto.Request{Key: "none", Algorithm: "AES"}, kind: fault.NotFound, text: `key "none" of keys`},
		"key that is none": {request: crypto.Request{Key: "rsa", Algorithm: "AES"}, kind: fault.Invalid, text: "an RSA private key does not do A256KW"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := all(p.Encrypt(t.Context(), &row.request, strings.NewReader("data")))
			if row.text != "" {
				if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil || !bytes.Contains(doc, []byte(row.name)) {
				t.Fatalf("document %q, %v", doc, err)
			}
			if got, err := all(p.Decrypt(t.Context(), "aes256", bytes.NewReader(doc))); err != nil || string(got) != "data" {
				t.Errorf("decrypted to %q, %v", got, err)
			}
		})
	}
}

func TestDocumentWithoutName(t *testing.T) {
	t.Parallel()
	p := opened(t, newRing(t))
	doc, err := all(p.Encrypt(t.Context(), &crypto.Request{Key: "rsa", Algorithm: "RSA", OmitKey: true}, strings.NewReader("data")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Decrypt(t.Context(), "", bytes.NewReader(doc)); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "names no key") {
		t.Errorf("got %v", err)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	down := fault.New(fault.Unavailable, "ask https://%s@vault", token)
	r := newRing(t)
	r.fail = down
	p := opened(t, r)
	p.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: 1, Limit: 3}})
	request := crypto.Request{Key: "aes256", Algorithm: "AES"}
	r.times = 3
	doc, err := all(p.Encrypt(t.Context(), &request, strings.NewReader("data")))
	if err != nil {
		t.Fatal(err)
	}
	r.times = 3
	if got, err := all(p.Decrypt(t.Context(), "", bytes.NewReader(doc))); err != nil || string(got) != "data" {
		t.Errorf("decrypted to %q, %v", got, err)
	}
	p.SetPolicy(nil)
	r.times = 2
	_, sealErr := p.Encrypt(t.Context(), &request, strings.NewReader("data"))
	_, openErr := p.Decrypt(t.Context(), "", bytes.NewReader(doc))
	for _, err := range []error{sealErr, openErr} {
		if fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "***@vault") {
			t.Errorf("without a policy: %v", err)
		}
	}
}

func TestNotOpen(t *testing.T) {
	t.Parallel()
	p := provider(t, newRing(t))
	request := crypto.Request{Key: "aes256", Algorithm: "AES"}
	if _, err := p.Encrypt(t.Context(), &request, strings.NewReader("data")); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("before it is open: %v", err)
	}
	if err := p.Instance().Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.SetPolicy(&resilience.Policy{Retry: resilience.Retry{Constant: true, Initial: 1, Limit: -1}})
	if _, err := p.Encrypt(t.Context(), &request, strings.NewReader("data")); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("when it is closed: %v", err)
	}
}

// A document is read as it arrives, and nobody who has not the key reads it.
func ExampleProvider() {
	text, err := os.ReadFile(filepath.Join(folder, "keys.json"))
	if err != nil {
		panic(err)
	}
	set, err := keys.ParseSet(text)
	if err != nil {
		panic(err)
	}
	def := crypto.Define("ring", component.About{}, func(context.Context, component.Env, noOptions) (crypto.Driver, error) { return &ring{set: set}, nil })
	p, err := crypto.New(def, component.Env{Name: "keys"}, config.Component{Name: "keys", Type: "crypto.ring"})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if err := p.Instance().Run(ctx); err != nil {
		panic(err)
	}
	sealed, err := p.Encrypt(ctx, &crypto.Request{Key: "rsa", Algorithm: "RSA"}, strings.NewReader("attack at dawn"))
	if err != nil {
		panic(err)
	}
	plain, err := p.Decrypt(ctx, "", sealed)
	if err != nil {
		panic(err)
	}
	data, err := io.ReadAll(plain)
	fmt.Println(string(data), err)
	// Output: attack at dawn <nil>
}
