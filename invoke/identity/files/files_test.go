package files_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/identity/authority"
	"github.com/penstock-io/penstock/invoke/identity/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hour = authority.Times{Backdate: time.Minute, Lifetime: time.Hour}

func newAuthority(t *testing.T, domain string) *authority.Authority {
	t.Helper()
	a, err := authority.New(domain, hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func save(t *testing.T, a *authority.Authority, app, dir string) {
	t.Helper()
	i, err := a.Issue("default", app, hour)
	if err == nil {
		err = i.Save(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// buffer is a log that may be written while it is read.
type buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not come to pass: " + what)
		}
	}
}

func TestFilesRotate(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), new(buffer)
	a := newAuthority(t, "public")
	save(t, a, "orders", dir)
	s, err := files.Open(files.Options{Dir: dir, Namespace: "default", AppID: "orders", Interval: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	now := func() *identity.Identity {
		i, err := s.Current()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := now()
	if first.ID.String() != "spiffe://public/ns/default/orders" {
		t.Errorf("it is %s", first.ID)
	}
	save(t, a, "orders", dir)
	eventually(t, "the new certificate is in force", func() bool { return now() != first })

	before := now()
	if err := os.WriteFile(filepath.Join(dir, "tls.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the wrong key is named", func() bool { return strings.Contains(log.String(), "tls.key") })
	if now() != before {
		t.Error("a wrong key changes something")
	}
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing file is named", func() bool { return strings.Contains(log.String(), "ca.crt") })

	b := newAuthority(t, "public")
	save(t, b, "orders", dir)
	eventually(t, "those of another authority are in force", func() bool {
		issuer := now().Certificate.Leaf
		return issuer.CheckSignatureFrom(b.Certificate()) == nil
	})
	if n := strings.Count(log.String(), "nonsense") + strings.Count(log.String(), "does not hold"); n > 0 {
		t.Error("the log shows what stands in a key")
	}
	if n := strings.Count(log.String(), "level=ERROR"); n > 4 {
		t.Errorf("%d complaints:\n%s", n, log)
	}
}

func TestAuthoritiesOfOtherDomains(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	save(t, newAuthority(t, "public"), "orders", dir)
	elsewhere := newAuthority(t, "elsewhere")
	save(t, elsewhere, "shop", other)
	text, err := os.ReadFile(filepath.Join(other, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca-elsewhere.crt"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := files.Open(files.Options{Dir: dir, Namespace: "default", AppID: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Current()
	if err != nil || len(now.Trust.Domains) != 2 || now.Trust.Domains["elsewhere"] == nil {
		t.Errorf("%v trusts %v", err, now)
	}
}

func TestWrongFilesAreNamed(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t, "public"), newAuthority(t, "public")
	put := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, row := range map[string]struct {
		spoil func(*testing.T, string)
		kind  fault.Kind
		want  string
	}{
		"no certificate": {put("tls.crt", ""), fault.Invalid, "tls.crt: read certificates: no PEM block CERTIFICATE"},
		"no key":         {put("tls.key", "nonsense"), fault.Invalid, "tls.key: read key: no PEM block PRIVATE KEY"},
		"no authorities": {put("ca.crt", "nonsense"), fault.Invalid, "ca.crt: read certificates"},
		"no file": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
				t.Fatal(err)
			}
		}, fault.NotFound, "tls.key"},
		"no folder": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}, fault.NotFound, "read identity files"},
		"another app": {func(t *testing.T, dir string) { save(t, a, "shop", dir) }, fault.Invalid, "it is for spiffe://public/ns/default/shop, but this is app orders in namespace default"},
		"another authority": {func(t *testing.T, dir string) {
			old, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			save(t, b, "orders", dir)
			put("ca.crt", string(old))(t, dir)
		}, fault.Invalid, "unknown authority"},
		"another key": {func(t *testing.T, dir string) {
			old, err := os.ReadFile(filepath.Join(dir, "tls.key"))
			if err != nil {
				t.Fatal(err)
			}
			save(t, a, "orders", dir)
			put("tls.key", string(old))(t, dir)
		}, fault.Invalid, "it is not that of the certificate"},
	} {
		dir := t.TempDir()
		save(t, a, "orders", dir)
		row.spoil(t, dir)
		_, err := files.Open(files.Options{Dir: dir, Namespace: "default", AppID: "orders"})
		if fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v (%s)", name, err, fault.KindOf(err))
		}
	}
}
