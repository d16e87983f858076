package message

import (
	"net/url"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/fault"
)

func TestPath(t *testing.T) {
	t.Parallel()
	rows := []struct{ raw, path, plain string }{
		{"orders", "orders", "orders"},
		{"/orders", "orders", "orders"},
		{"//orders", "orders", "orders"},
		{"orders/", "orders/", "orders/"},
		{"", "", ""},
		{"/", "", ""},
		{"a%20b", "a%20b", "a b"},
		{"a b", "a%20b", "a b"},
		{"a%2Fb", "a%2Fb", "a/b"},
		{"a%2fb", "a%2fb", "a/b"},
		{"%61dmin", "%61dmin", "admin"},
		{"ä", "%C3%A4", "ä"},
		{"a;b=c", "a;b=c", "a;b=c"},
		{"a+b:c@d", "a+b:c@d", "a+b:c@d"},
		{`a"b`, "a%22b", `a"b`},
		{"a.b/..c/...", "a.b/..c/...", "a.b/..c/..."},
		{"[x]~", "[x]~", "[x]~"},
	}
	for _, row := range rows {
		got, err := Path(row.raw)
		if err != nil || got != row.path || Plain(got) != row.plain {
			t.Errorf("%q: %q, plain %q, %v; want %q, plain %q", row.raw, got, Plain(got), err, row.path, row.plain)
		}
	}
}

func TestPathsThatTwoReadersUnderstandDifferently(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"admin%2F..%2Fpublic", "x/../neworder", "..", "../x", "x/..", ".", "a/./b", "%2e%2e/x", "a/%2E", "a//b", "a%2F/b", "%2Fadmin", "/%2Fadmin",
		"neworde%2572", "100%25", "a%3Fb", "a%23b", "a?b", "a#b", `a\b`, "a%5Cb", "a%00", "a\x00", "a%0Ab", "a\r\nb", "a%7F",
		"pub/..;/admin", "pub/..;a=b/admin", "a/.;x", "a/;x/b", ";x", "a/%3Bx/b", "a/..%3B", strings.Repeat("a", 64<<10+1),
		"a%", "a%zz", "a%2", "a%FF", "a\xff", "%C0%AE%C0%AE/x",
	} {
		if got, err := Path(raw); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.80q: %.80q, %v; want an error of kind invalid", raw, got, err)
		}
	}
}

// FuzzPath: the path that is checked is the one that is dispatched, by every way.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"orders", "/a%20b/", "a%2Fb", "%61", "ä b", "..", "a%2572", `"'`, "a;b", "a/..;/b", "//", "%2f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, err := Path(raw)
		if err != nil {
			return
		}
		if again, err := Path(path); err != nil || again != path {
			t.Fatalf("%q becomes %q, which becomes %q, %v", raw, path, again, err)
		}
		plain := Plain(path)
		if other, err := Path(plain); err != nil || Plain(other) != plain {
			t.Fatalf("%q in plain form is %q, which reads as %q, %v", path, plain, Plain(other), err)
		}
		u := &url.URL{Path: "/" + plain, RawPath: "/" + path}
		if u.RequestURI() != "/"+path {
			t.Fatalf("%q is sent as %q", path, u.RequestURI())
		}
		seen, err := url.ParseRequestURI("/" + path)
		if err != nil || seen.Path != "/"+plain || seen.RawQuery != "" || seen.Fragment != "" {
			t.Fatalf("an app reads %q as %+v, %v; want %q", path, seen, err, plain)
		}
		if strings.ContainsAny(plain, "%?#\\\x00") {
			t.Fatalf("%q is let through as %q", raw, plain)
		}
	})
}
