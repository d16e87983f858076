package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
	fake "github.com/penstock-io/penstock/test/fake/kubernetes"
)

// try opens a store as a document would: name=value for each option.
func try(t *testing.T, namespace string, options ...string) (secrets.Driver, error) {
	t.Helper()
	var items []config.Item
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		items = append(items, config.Item{Name: name, Value: value})
	}
	env := component.Env{Name: "cluster", Namespace: namespace, Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.Close(context.WithoutCancel(t.Context())) })
	return d.(secrets.Driver), nil
}

func opened(t *testing.T, namespace string, options ...string) secrets.Driver {
	t.Helper()
	d, err := try(t, namespace, options...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	s := fake.Start(t)
	s.Allow("right", "mine", "shared", "instance")
	for _, namespace := range []string{"mine", "shared", "instance", "foreign"} {
		s.Put(namespace, "db", map[string]string{"in": namespace})
	}
	base := []string{"apiServer=" + s.URL, "token=right", "caCert=" + s.CA()}
	d := opened(t, "instance", append(base, "defaultNamespace=mine")...)
	for asked, want := range map[string]string{"": "mine", "shared": "shared"} {
		metadata := map[string]string{"namespace": asked}
		if got, err := d.Get(t.Context(), "db", metadata); err != nil || got["in"] != want {
			t.Errorf("%q: %v, %v", asked, got, err)
		}
		if all, err := d.Bulk(t.Context(), metadata); err != nil || len(all) != 1 || all["db"]["in"] != want {
			t.Errorf("bulk of %q: %v, %v", asked, all, err)
		}
	}
	if got, err := opened(t, "instance", base...).Get(t.Context(), "db", nil); err != nil || got["in"] != "instance" {
		t.Errorf("that of the instance: %v, %v", got, err)
	}
	for asked, kind := range map[string]fault.Kind{"foreign": fault.Denied, "a/b": fault.Invalid, "..": fault.Invalid, "Mine": fault.Invalid, "mine/secrets/db?": fault.Invalid} {
		if got, err := d.Get(t.Context(), "db", map[string]string{"namespace": asked}); err == nil || fault.KindOf(err) != kind {
			t.Errorf("%q: %v, %v", asked, got, err)
		}
	}
	if got, err := opened(t, "", base...).Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "defaultNamespace") {
		t.Errorf("no namespace at all: %v, %v", got, err)
	}
}

// A name means one object of the namespace, whatever it is made of.
func TestNames(t *testing.T) {
	t.Parallel()
	s := fake.Start(t)
	s.Allow("right", "mine", "other")
	s.Put("other", "hidden", map[string]string{"v": "canary"})
	s.Put("mine", "a-1.b", map[string]string{"v": "ok"})
	d := opened(t, "mine", "apiServer="+s.URL, "token=right", "caCert="+s.CA())
	for _, key := range []string{
		"", ".", "..", "../../other/secrets/hidden", "hidden/", "Hidden", "a b", "a%2Fb", "ä", "a?x=y", "-a", "a-", "a..b", ".a", "a.", "a\n", strings.Repeat("a", 254),
	} {
		if got, err := d.Get(t.Context(), key, nil); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", key, got, err)
		}
	}
	if got, err := d.Get(t.Context(), "a-1.b", nil); err != nil || got["v"] != "ok" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := fake.Start(t)
	s.Allow("right", "mine")
	for i := range 1203 {
		s.Put("mine", fmt.Sprintf("s%04d", i), map[string]string{"i": fmt.Sprint(i)})
	}
	d := opened(t, "mine", "apiServer="+s.URL, "token=right", "caCert="+s.CA())
	all, err := d.Bulk(t.Context(), nil)
	if err != nil || len(all) != 1203 || all["s1202"]["i"] != "1202" {
		t.Errorf("%d secrets, %v", len(all), err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := fake.Start(t)
	s.Allow("first", "mine")
	s.Allow("poor")
	s.Put("mine", "db", map[string]string{"v": "1"})
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := []string{"apiServer=" + s.URL, "caCert=" + s.CA()}
	if _, err := try(t, "mine", append(base, "token=canary")...); fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := try(t, "mine", append(base, "tokenPath="+path)...); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no file: %v", err)
	}
	write("canary\ncanary")
	if _, err := try(t, "mine", append(base, "tokenPath="+path)...); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "canary") {
		t.Errorf("two lines: %v", err)
	}
	write("first\n")
	d := opened(t, "mine", append(base, "tokenPath="+path)...)
	if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
		t.Errorf("got %v, %v", got, err)
	}
	s.Allow("second", "mine")
	s.Forget("first")
	if _, err := d.Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("a token that was taken back: %v", err)
	}
	write("second")
	if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
		t.Errorf("the new token: %v, %v", got, err)
	}
	poor := opened(t, "mine", append(base, "token=poor")...)
	if _, err := poor.Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "is forbidden") {
		t.Errorf("a token without rights: %v", err)
	}
	if _, err := poor.Bulk(t.Context(), nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("bulk with a token without rights: %v", err)
	}
}

func TestOtherAnswers(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		status int
		body   string
		kind   fault.Kind
		want   string
	}{
		"a page":         {200, "<html>canary</html>", fault.Unavailable, "not the JSON"},
		"another object": {200, `{"metadata":{"name":"canary"},"data":{"a":"Yg=="}}`, fault.Unavailable, "not the JSON"},
		"not base64":     {200, `{"metadata":{"name":"db"},"data":{"a":"canary!"}}`, fault.Unavailable, "not the JSON"},
		"empty":          {200, "", fault.Unavailable, "not the JSON"},
		"redirect":       {302, "", fault.Unavailable, "apiServer"},
		"busy":           {429, `{"message":"too many requests"}`, fault.Exhausted, "too many requests"},
		"broken":         {500, `{"message":"etcdserver: leader changed"}`, fault.Internal, "leader changed"},
		"proxy":          {502, "<html>canary</html>", fault.Unavailable, "Bad Gateway"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/version" {
					http.Error(w, "", http.StatusForbidden)
					return
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
			}))
			defer s.Close()
			d := opened(t, "mine", "apiServer="+s.URL, "token=t")
			_, one := d.Get(t.Context(), "db", nil)
			_, bulk := d.Bulk(t.Context(), nil)
			if name == "another object" || name == "not base64" {
				bulk = one // a list has other bodies
			}
			for _, err := range []error{one, bulk} {
				if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "canary") {
					t.Errorf("got %v of kind %v, want %q of kind %v", err, fault.KindOf(err), row.want, row.kind)
				}
			}
		})
	}
	if _, err := try(t, "mine", "apiServer=http://127.0.0.1:1", "token=t"); !fault.Retriable(err) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestInAPod(t *testing.T) { // not parallel: it sets environment variables
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := try(t, "mine", "kubeconfigPath=config"); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "apiServer") {
		t.Errorf("outside a pod: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	got, err := options{}.inPod()
	if err != nil || got.Server != "https://[fd00::1]:443" || got.TokenPath != podToken || got.CACert != podCA {
		t.Errorf("in a pod: %+v, %v", got, err)
	}
	got, err = options{Server: "https://other:6443", Token: component.NewSecret("t")}.inPod()
	if err != nil || got.Server != "https://other:6443" || got.TokenPath != "" || got.CACert != "" {
		t.Errorf("with options: %+v, %v", got, err)
	}
}
