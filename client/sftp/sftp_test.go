package sftp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/fake"
	server "github.com/penstock-io/penstock/test/fake/sftp"
)

func options(s *server.Server) Options {
	return Options{
		Address: s.Addr(), Username: server.Username, Password: component.NewSecret(server.Password), HostPublicKey: s.HostKey(),
	}
}

// dial opens a client; the test closes it in the end.
func dial(t *testing.T, env component.Env, o Options) *Client {
	t.Helper()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), env, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

// where asks the server for something.
func where(ctx context.Context, c *Client) error {
	_, err := Do(ctx, c, func(s *sftp.Client) (string, error) { return s.Getwd() })
	return err
}

func TestWaysIn(t *testing.T) {
	t.Parallel()
	s := server.Start(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKey()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, []byte(knownhosts.Line([]string{s.Addr()}, key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"password":    func(*Options) {},
		"key":         func(o *Options) { o.Password, o.PrivateKey = component.Secret{}, component.NewSecret(s.PrivateKey()) },
		"known hosts": func(o *Options) { o.HostPublicKey, o.KnownHostsFile = "", known },
		"keyscan":     func(o *Options) { o.HostPublicKey = knownhosts.Line([]string{s.Addr()}, key) },
		"any host":    func(o *Options) { o.HostPublicKey, o.InsecureIgnoreHostKey = "", true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(s)
			change(&o)
			if err := where(t.Context(), dial(t, component.Env{}, o)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := server.Start(t)
	other := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey())))
	empty := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		change func(*Options)
		kind   fault.Kind
	}{
		"wrong password": {func(o *Options) { o.Password = component.NewSecret("wrong") }, fault.Denied},
		"another server": {func(o *Options) { o.HostPublicKey = other }, fault.Denied},
		"unknown server": {func(o *Options) { o.HostPublicKey, o.KnownHostsFile = "", empty }, fault.Denied},
		"no such file":   {func(o *Options) { o.HostPublicKey, o.KnownHostsFile = "", empty+"x" }, fault.Invalid},
		"nobody there":   {func(o *Options) { o.Address = "127.0.0.1:1" }, fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(s)
			row.change(&o)
			_, err := Open(t.Context(), component.Env{}, o)
			if err == nil || fault.KindOf(err) != row.kind {
				t.Fatalf("%v of kind %v, want %v", err, fault.KindOf(err), row.kind)
			}
			if strings.Contains(err.Error(), "wrong") && strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeysThatAreLocked(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{PrivateKey: component.NewSecret(string(pem.EncodeToMemory(block)))}
	if _, err := o.signer(); err == nil || !strings.Contains(err.Error(), "privateKeyPassphrase") {
		t.Errorf("without a passphrase: %v", err)
	}
	o.PrivateKeyPassphrase = component.NewSecret("open")
	if _, err := o.signer(); err != nil {
		t.Error(err)
	}
}

// TestOneConnection: components share it, and it is made anew when it broke.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	s := server.Start(t)
	env := component.Env{Shared: &component.Shared{}}
	one, two := dial(t, env, options(s)), dial(t, env, options(s))
	for _, c := range []*Client{one, two} {
		if err := where(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Logins(); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
	s.Stop()
	if err := again(t, one, func(err error) bool { return err != nil }); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without a server: %v of kind %v", err, fault.KindOf(err))
	}
	s.Restart(t)
	if err := again(t, two, func(err error) bool { return err == nil }); err != nil {
		t.Error(err)
	}
	if n := s.Logins(); n != 2 {
		t.Errorf("%d connections after one broke, want 2", n)
	}
	if err := two.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := where(t.Context(), two); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("after close: %v", err)
	}
	if err := where(t.Context(), one); err != nil {
		t.Errorf("after the other was closed: %v", err)
	}
}

// again asks the server until the answer is as wanted.
func again(t *testing.T, c *Client, ok func(error) bool) error {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		if err := where(t.Context(), c); ok(err) || time.Now().After(end) {
			return err
		}
	}
}

// TestServerThatHangs: work ends with its context, and Close with its own.
func TestServerThatHangs(t *testing.T) {
	t.Parallel()
	s := server.Start(t)
	proxy, err := fake.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	o := options(s)
	o.Address = proxy.Addr()
	c := dial(t, component.Env{}, o)
	proxy.Set(fake.Network{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := where(ctx, c); fault.KindOf(err) != fault.Timeout {
		t.Errorf("work: %v of kind %v, want timeout", err, fault.KindOf(err))
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, component.Env{}, o); fault.KindOf(err) != fault.Timeout {
		t.Errorf("open: %v of kind %v, want timeout", err, fault.KindOf(err))
	}
}

// TestServerThatIsGoneWithoutAWord: the connection is cut, and the next piece of
// work makes another.
func TestServerThatIsGoneWithoutAWord(t *testing.T) {
	t.Parallel()
	s := server.Start(t)
	proxy, err := fake.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	o := options(s)
	o.Address = proxy.Addr()
	l, err := o.link()
	if err != nil {
		t.Fatal(err)
	}
	l.alive = 300 * time.Millisecond
	t.Cleanup(func() { _ = l.close() }) // it never fails
	first, err := l.connected(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proxy.Set(fake.Network{Silent: true})
	select {
	case <-first.over:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection is kept")
	}
	proxy.Set(fake.Network{})
	c := &Client{link: l, release: func() error { return nil }}
	if err := again(t, c, func(err error) bool { return err == nil }); err != nil {
		t.Error(err)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	c := dial(t, component.Env{}, options(server.Start(t)))
	missing := filepath.Join(t.TempDir(), "no")
	for name, row := range map[string]struct {
		do   func(*sftp.Client) error
		kind fault.Kind
	}{
		"missing":  {func(s *sftp.Client) error { _, err := s.Stat(missing); return err }, fault.NotFound},
		"denied":   {func(*sftp.Client) error { return fs.ErrPermission }, fault.Denied},
		"our own":  {func(*sftp.Client) error { return fault.New(fault.Invalid, "x") }, fault.Invalid},
		"unknown":  {func(*sftp.Client) error { return errors.New("x") }, fault.Internal},
		"a folder": {func(s *sftp.Client) error { return s.Mkdir(filepath.Dir(missing)) }, fault.Internal},
	} {
		_, err := Do(t.Context(), c, func(s *sftp.Client) (int, error) { return 0, row.do(s) })
		if err == nil || fault.KindOf(err) != row.kind {
			t.Errorf("%s: %v of kind %v, want %v", name, err, fault.KindOf(err), row.kind)
		}
	}
}
