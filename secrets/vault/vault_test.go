package vault

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
	fake "github.com/penstock-io/penstock/test/fake/vault"
)

// logs is a log that may be read while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// try opens a store as a document would: name=value for each option.
func try(t *testing.T, log *logs, options ...string) (secrets.Driver, error) {
	t.Helper()
	var items []config.Item
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{Name: "vault", Logger: slog.New(slog.NewTextHandler(log, nil))}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.Close(context.WithoutCancel(t.Context())) })
	return d.(secrets.Driver), nil
}

func opened(t *testing.T, options ...string) secrets.Driver {
	t.Helper()
	d, err := try(t, &logs{}, options...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// eventually waits until ok, for at most 30 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("kv/team", "db", `{"user":"u","n":1.50,"on":true,"none":null,"list":["a",1],"deep":{"k":"v"},"empty":""}`)
	d := opened(t, "vaultAddr="+s.URL+"/", "vaultToken="+fake.Root, "enginePath=kv/team/", "vaultKVUsePrefix=false")
	want := map[string]string{"user": "u", "n": "1.50", "on": "true", "list": `["a",1]`, "deep": `{"k":"v"}`, "empty": ""}
	got, err := d.Get(t.Context(), "db", nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	d = opened(t, "vaultAddr="+s.URL, "vaultToken="+fake.Root, "enginePath=kv/team", "vaultKVUsePrefix=no", "vaultValueType=text")
	got, err = d.Get(t.Context(), "db", nil)
	if text := got["db"]; err != nil || len(got) != 1 || !strings.Contains(text, `"n":1.50`) {
		t.Errorf("as text: %v, %v", got, err)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"password":"one"}`)
	s.Put("secret", "dapr/db", `{"password":"two"}`)
	d := opened(t, "vaultAddr="+s.URL, "vaultToken="+fake.Root)
	for version, want := range map[string]string{"": "two", "0": "two", "1": "one", "2": "two"} {
		got, err := d.Get(t.Context(), "db", map[string]string{"version_id": version, "other": "x"})
		if err != nil || got["password"] != want {
			t.Errorf("version %q: %v, %v", version, got, err)
		}
	}
	for version, kind := range map[string]fault.Kind{"3": fault.NotFound, "-1": fault.Invalid, "latest": fault.Invalid, "1&x=y": fault.Invalid} {
		if got, err := d.Get(t.Context(), "db", map[string]string{"version_id": version}); err == nil || fault.KindOf(err) != kind {
			t.Errorf("version %q: %v, %v", version, got, err)
		}
	}
	s.Delete("secret", "dapr/db")
	if got, err := d.Get(t.Context(), "db", nil); err == nil || fault.KindOf(err) != fault.NotFound {
		t.Errorf("deleted: %v, %v", got, err)
	}
	if all, err := d.Bulk(t.Context(), nil); err != nil || len(all) != 0 {
		t.Errorf("bulk with a deleted one: %v, %v", all, err)
	}
	if got, err := d.Get(t.Context(), "db", map[string]string{"version_id": "1"}); err != nil || got["password"] != "one" {
		t.Errorf("version before the deleted one: %v, %v", got, err)
	}
}

// A key is one path below the prefix, whatever it is made of.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "outside", `{"v":"canary"}`)
	s.Put("secret", "dapr/hidden", `{"v":"canary"}`)
	for _, name := range []string{"a b", "ä", "q?version=1", "x#y", "100%", "a%2Fb", "a+b"} {
		s.Put("secret", "dapr/"+name, `{"v":"ok"}`)
	}
	d := opened(t, "vaultAddr="+s.URL, "vaultToken="+fake.Root)
	for _, key := range []string{"", "/hidden", "hidden/", "./hidden", "x/../hidden", "../outside", "a//hidden", "..", " hidden", "hidden\n", "hidden\x00"} {
		if got, err := d.Get(t.Context(), key, nil); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", key, got, err)
		}
	}
	for _, name := range []string{"a b", "ä", "q?version=1", "x#y", "100%", "a%2Fb", "a+b"} {
		if got, err := d.Get(t.Context(), name, nil); err != nil || got["v"] != "ok" {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/mine", `{"v":"1"}`)
	s.Put("secret", "dapr/theirs", `{"v":"2"}`)
	token := s.Token(0, 0, false, "secret/data/dapr/mine")
	d := opened(t, "vaultAddr="+s.URL, "vaultToken="+token)
	if got, err := d.Get(t.Context(), "mine", nil); err != nil || got["v"] != "1" {
		t.Errorf("mine: %v, %v", got, err)
	}
	_, err := d.Get(t.Context(), "theirs", nil)
	_, bulkErr := d.Bulk(t.Context(), nil)
	for _, err := range []error{err, bulkErr} {
		if err == nil || fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "permission denied") || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("theirs: %v", err)
		}
	}
}

func TestWrongTokens(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Role("approle", "orders", "right", time.Hour, 0)
	s.Role("kubernetes", "orders", "right", time.Hour, 0)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rows := map[string]struct {
		options []string
		kind    fault.Kind
		want    string
	}{
		"token":            {[]string{"vaultToken=canary-token"}, fault.Denied, "invalid token"},
		"token file":       {[]string{"vaultTokenMountPath=" + file("wrong", "canary-token\n")}, fault.Denied, "invalid token"},
		"no token file":    {[]string{"vaultTokenMountPath=" + filepath.Join(dir, "none")}, fault.NotFound, "vaultTokenMountPath"},
		"empty token file": {[]string{"vaultTokenMountPath=" + file("empty", " \n")}, fault.Invalid, "no token"},
		"two lines":        {[]string{"vaultTokenMountPath=" + file("two", "canary\ncanary\n")}, fault.Invalid, "no token"},
		"approle":          {[]string{"vaultAuth=approle", "roleID=orders", "secretID=canary"}, fault.Invalid, "invalid role or secret ID"},
		"approle unknown":  {[]string{"vaultAuth=approle", "roleID=nobody", "secretID=canary"}, fault.Invalid, "log in by approle"},
		"approle no file":  {[]string{"vaultAuth=approle", "roleID=orders", "secretIDPath=" + filepath.Join(dir, "none")}, fault.NotFound, "secretIDPath"},
		"kubernetes":       {[]string{"vaultAuth=kubernetes", "kubernetesRole=orders", "kubernetesTokenPath=" + file("jwt", "canary")}, fault.Denied, "log in by kubernetes"},
		"kubernetes role":  {[]string{"vaultAuth=kubernetes", "kubernetesRole=nobody", "kubernetesTokenPath=" + file("jwt2", "canary")}, fault.Invalid, "nobody"},
		"no engine there":  {[]string{"vaultAuth=approle", "vaultAuthPath=elsewhere", "roleID=orders", "secretID=canary"}, fault.Invalid, "log in"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			log := &logs{}
			_, err := try(t, log, append(row.options, "vaultAddr="+s.URL)...)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v of kind %v, want %q of kind %v", err, fault.KindOf(err), row.want, row.kind)
			}
			if err != nil && strings.Contains(err.Error()+log.String(), "canary") {
				t.Errorf("a secret is shown: %v %s", err, log)
			}
		})
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	s.Role("approle", "orders", "s3cret", time.Hour, 0)
	s.Role("k8s/east", "orders", "jwt-1", time.Hour, 0)
	jwt := filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(jwt, []byte("jwt-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{
		"approle":    {"vaultAuth=approle", "roleID=orders", "secretID=s3cret"},
		"kubernetes": {"vaultAuth=kubernetes", "vaultAuthPath=k8s/east", "kubernetesRole=orders", "kubernetesTokenPath=" + jwt},
	} {
		d := opened(t, append(options, "vaultAddr="+s.URL)...)
		if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		before := s.Logins()
		s.Revoke() // the next request logs in again
		if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" || s.Logins() != before+1 {
			t.Errorf("%s after its token was taken back: %v, %v, %d logins", name, got, err, s.Logins()-before)
		}
	}
}

// Many requests that find their token taken back log in once.
func TestOneLoginForMany(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	s.Role("approle", "orders", "", time.Hour, 0)
	d := opened(t, "vaultAddr="+s.URL, "vaultAuth=approle", "roleID=orders")
	s.Revoke()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := d.Get(t.Context(), "db", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.Logins(); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	s.Role("approle", "orders", "", 3*time.Second, 5*time.Second)
	d := opened(t, "vaultAddr="+s.URL, "vaultAuth=approle", "roleID=orders")
	token := opened(t, "vaultAddr="+s.URL, "vaultToken="+s.Token(3*time.Second, 0, true, "secret/"))
	// The login's token may be renewed for five seconds; after that there is another login.
	eventually(t, "renewals and a second login", func() bool {
		for name, d := range map[string]secrets.Driver{"login": d, "token": token} {
			if _, err := d.Get(t.Context(), "db", nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		return s.Renewals() >= 4 && s.Logins() >= 2
	})
}

func TestATokenThatEndsIsLogged(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	log := &logs{}
	if _, err := try(t, log, "vaultAddr="+s.URL, "vaultToken="+s.Token(2*time.Second, 0, false)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is logged", func() bool { return strings.Contains(log.String(), "cannot be renewed") })
}

func TestATokenFileIsReadAgain(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(s.Token(time.Hour, 0, true, "secret/") + "\n")
	d := opened(t, "vaultAddr="+s.URL, "vaultTokenMountPath="+path)
	s.Revoke()
	if _, err := d.Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("with a token that was taken back: %v", err)
	}
	write(s.Token(time.Hour, 0, true, "secret/"))
	if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
		t.Errorf("with the new token: %v, %v", got, err)
	}
}

func TestSealedAndGone(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, false)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	d := opened(t, "vaultAddr="+s.URL, "vaultToken="+fake.Root)
	s.Seal(true)
	if _, err := d.Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("sealed: %v", err)
	}
	if _, err := try(t, &logs{}, "vaultAddr="+s.URL, "vaultToken="+fake.Root); !fault.Retriable(err) {
		t.Errorf("open with a sealed server: %v", err)
	}
	s.Seal(false)
	if _, err := d.Get(t.Context(), "db", nil); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	s.Close()
	if _, err := d.Get(t.Context(), "db", nil); !fault.Retriable(err) || strings.Contains(err.Error(), "/v1/") {
		t.Errorf("gone: %v", err)
	}
}

// What is no Vault is told so, and nothing of its answer is shown.
func TestOtherAnswers(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		status int
		body   string
		kind   fault.Kind
		want   string
	}{
		"a page":            {200, "<html>canary</html>", fault.Unavailable, "not the JSON"},
		"cut short":         {200, `{"data":{"data":{"v":"canary`, fault.Unavailable, "not the JSON"},
		"engine version 1":  {200, `{"data":{"v":"canary"}}`, fault.NotFound, "no data"},
		"data is a list":    {200, `{"data":{"data":["canary"]}}`, fault.Unavailable, "not the JSON"},
		"data is a text":    {200, `{"data":{"data":"canary"}}`, fault.Unavailable, "not the JSON"},
		"empty":             {200, "", fault.Unavailable, "not the JSON"},
		"redirect":          {307, "", fault.Unavailable, "active server"},
		"standby":           {473, `{"errors":["standby"]}`, fault.Unavailable, "standby"},
		"too many requests": {429, `{"errors":["request path quota exceeded"]}`, fault.Exhausted, "quota"},
		"internal error":    {500, `{"errors":["1 error occurred:\n\t* storage is gone\n\n"]}`, fault.Internal, "storage is gone"},
		"long error":        {400, `{"errors":["` + strings.Repeat("x", 10_000) + `"]}`, fault.Invalid, "xxx..."},
		"bad gateway":       {502, "<html>canary</html>", fault.Unavailable, "Bad Gateway"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/lookup-self") {
					_, _ = w.Write([]byte(`{"data":{"ttl":0}}`))
					return
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
			}))
			defer s.Close()
			d := opened(t, "vaultAddr="+s.URL, "vaultToken=t")
			got, err := d.Get(t.Context(), "db", nil)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, %v of kind %v, want %q of kind %v", got, err, fault.KindOf(err), row.want, row.kind)
			}
			if err != nil && (strings.Contains(err.Error(), "canary") || len(err.Error()) > 1000) {
				t.Errorf("shown: %v", err)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := fake.Start(t, true)
	s.Put("secret", "dapr/db", `{"v":"1"}`)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]string{
		"text": "caPem=" + ca, "file": "caCert=" + filepath.Join(dir, "ca.pem"), "folder": "caPath=" + dir, "any": "skipVerify=true",
	} {
		d := opened(t, "vaultAddr="+s.URL, "vaultToken="+fake.Root, option)
		if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := try(t, &logs{}, "vaultAddr="+s.URL, "vaultToken="+fake.Root); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	if _, err := try(t, &logs{}, "vaultAddr="+s.URL, "vaultToken="+fake.Root, "caPath="+t.TempDir()); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := try(t, &logs{}, "vaultAddr="+s.URL, "vaultToken="+fake.Root, "caPem="+ca, "tlsServerName=else.example"); err == nil {
		t.Error("a certificate of another name is taken")
	}
}
