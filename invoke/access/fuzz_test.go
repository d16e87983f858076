package access_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/message"
)

// readers are what servers do with a path before they look for a handler.
func readers() []func(string) string {
	bare := func(p string) string {
		list := strings.Split(p, "/")
		for i, s := range list {
			list[i], _, _ = strings.Cut(s, ";")
		}
		return strings.Join(list, "/")
	}
	return []func(string) string{
		func(p string) string { return p },
		strings.ToLower,
		bare,
		path.Clean,
		func(p string) string { return path.Clean(bare(strings.ToLower(p))) },
		func(p string) string { // escapes once more
			again, err := url.PathUnescape(p)
			if err != nil {
				return p
			}
			return path.Clean(again)
		},
	}
}

// FuzzDenied: no spelling of a path gets past a rule that denies it, whatever the
// app's server does with it; and what a rule allows is what it says.
func FuzzDenied(f *testing.F) {
	for _, seed := range []string{
		"admin", "/admin/", "ADMIN", "%61dmin", "admin%2Fx", "x/../admin", "//admin", "admin;a=b", "adm%2569n", "pub/..;/admin", "admin%00", "ad\u212Ain",
	} {
		f.Add(seed, "GET")
	}
	f.Add("admin", "get")
	f.Add("admin", "PROPFIND")
	const policy = "policies:\n- appId: shop\n  namespace: default\n  operations:\n"
	denying := read(f, "defaultAction: allow\n"+policy+"  - {name: /admin, action: deny}\n", true)
	allowing := read(f, "defaultAction: deny\n"+policy+"  - {name: /admin/*, httpVerb: [GET], action: allow}\n", true)
	f.Fuzz(func(t *testing.T, raw, verb string) {
		p, err := message.Path(raw)
		if err != nil {
			return // the app never sees it
		}
		// What the server of an app makes of what is sent.
		u := &url.URL{Scheme: "http", Host: "app", Path: "/" + message.Plain(p), RawPath: "/" + p}
		sent := httptest.NewRequest(http.MethodGet, u.String(), nil).URL.Path
		c := access.Call{Caller: shop, Path: p, Verb: verb}
		for i, reader := range readers() {
			seen := reader(sent)
			if under(seen, "/admin") && denying.Allows(c) {
				t.Fatalf("%q gets through; reader %d of the app makes %q of it", raw, i, seen)
			}
			if allowing.Allows(c) && i < 2 && !under(strings.ToLower(seen), "/admin") {
				t.Fatalf("%q is allowed; reader %d of the app makes %q of it", raw, i, seen)
			}
		}
	})
}

func under(path, top string) bool {
	path = strings.TrimSuffix(path, "/")
	return path == top || strings.HasPrefix(path, top+"/")
}
