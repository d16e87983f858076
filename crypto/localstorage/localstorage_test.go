package localstorage

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// folderOf makes a folder with files.
func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func private(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func secret(size int) string { return strings.Repeat("\xf5", size) }

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	pem := private(t)
	conform.Crypto(t, Component, conform.CryptoSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"path": folderOf(t, map[string]string{
				"rsa.pem": pem, "deep/er/bytes": secret(32), "text": base64.StdEncoding.EncodeToString([]byte(secret(32))[:24]), "small": secret(16),
				"key.json": `{"kty":"oct","k":"` + base64.RawURLEncoding.EncodeToString([]byte(secret(31)+"x")) + `"}`,
				"broken":   "-----BEGIN nothing", "no.json": "[]", "big": strings.Repeat(" ", maxSize+1),
			})}
		},
		Keys: map[string]enc.Algorithm{
			"rsa.pem": enc.RSAOAEP256, "deep/er/bytes": enc.A256KW, "text": enc.A192CBC, "small": enc.A128CBC, "key.json": enc.A256CBC,
		},
		Unfit: map[string]enc.Algorithm{
			"rsa.pem": enc.A256KW, "small": enc.A256KW, "key.json": enc.RSAOAEP256, "broken": enc.A256KW, "no.json": enc.A256KW, "big": enc.A256KW,
		},
		Missing: []string{"none", "deep", "deep/er", "deep/none", "rsa.pem/x", "deep//er/bytes", "./small", "deep/../small", "SMALL"},
	})
}

func TestNoWayOut(t *testing.T) {
	t.Parallel()
	outside := folderOf(t, map[string]string{"key": secret(32)})
	dir := folderOf(t, map[string]string{"real": secret(32)})
	for name, to := range map[string]string{"out": filepath.Join(outside, "key"), "up": outside, "in": "real"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := open(t.Context(), component.Env{}, options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"out", "up/key", "../" + filepath.Base(outside) + "/key", filepath.Join(outside, "key")} {
		if _, err := d.WrapKey(t.Context(), name, enc.A256KW, make([]byte, 32)); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s leads out of the folder: %v", name, err)
		}
	}
	for _, name := range []string{"in", "real", "/real"} {
		if _, err := d.WrapKey(t.Context(), name, enc.A256KW, make([]byte, 32)); err != nil {
			t.Errorf("%s stays in the folder: %v", name, err)
		}
	}
}

func TestReplacedKey(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, map[string]string{"key": secret(32)})
	d, err := open(t.Context(), component.Env{}, options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := d.WrapKey(t.Context(), "key", enc.A256KW, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(secret(31)+"x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.UnwrapKey(t.Context(), "key", enc.A256KW, wrapped); fault.KindOf(err) != fault.Invalid {
		t.Errorf("the key was replaced: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, map[string]string{"file": "x"})
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "file")} {
		if _, err := open(t.Context(), component.Env{}, options{Path: path}); err == nil || fault.Retriable(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
