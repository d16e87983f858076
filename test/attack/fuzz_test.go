package attack

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/invoke/message"
)

var operation = regexp.MustCompile(`operation: (.*) verb: `)

// FuzzInvoke sends a path through everything there is, from the socket to the app:
// the path that access control decides on is the one that the app gets and the one
// that is told, and none that the app could take for a denied one gets there.
func FuzzInvoke(f *testing.F) {
	for _, seed := range []string{
		"public", "neworder", "neworde%72", "admin/users", "ADMIN/x", "admin%2Fx", "x/../neworder", "public/..;/admin/x", "neworder;a", "//neworder/",
		"%2e%2e/neworder", "neworder?x", "a%20b", "%E2%84%AA", "neworde%2572", "a//b", "public%00", ".", "",
	} {
		f.Add(seed)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, target string) {
		head := fmt.Sprintf("POST /v1.0/invoke/callee/method/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\ndapr-api-token: %s\r\nConnection: close\r\n\r\n", target, apiToken)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil || r.RequestURI != "/v1.0/invoke/callee/method/"+target || strings.Contains(target, "/method/") || len(target) > 2000 {
			return // no request, or another one than meant
		}
		raw, _, _ := strings.Cut(target, "?")
		canonical, invalid := message.Path(raw)
		got := exchange(t, w.at["callee"], head)
		seen := w.app.take(0)
		w.log.take()
		status := 0
		if len(got.statuses) > 0 {
			status = got.statuses[0]
		}
		switch {
		case status == http.StatusForbidden:
			told := operation.FindStringSubmatch(got.text)
			if len(seen) > 0 || told == nil {
				t.Fatalf("%q is denied, the app saw %q: %s", target, targets(seen), got.text)
			}
		case invalid != nil || status != http.StatusOK:
			if len(seen) > 0 || status == http.StatusOK {
				t.Fatalf("%q is answered with %d, the app saw %q", target, status, targets(seen))
			}
		default:
			checkSeen(t, target, canonical, seen)
		}
	})
}

// checkSeen checks what the app got.
func checkSeen(t *testing.T, target, canonical string, seen []seen) {
	t.Helper()
	if canonical == "dapr/subscribe" || canonical == "unsure" {
		return // the app does not note it
	}
	if len(seen) != 1 {
		t.Fatalf("%q: the app saw %q", target, targets(seen))
	}
	uri, _, _ := strings.Cut(strings.TrimPrefix(seen[0].target, "POST "), "?")
	u, err := url.ParseRequestURI(uri)
	if err != nil || uri != "/"+canonical || u.Path != "/"+message.Plain(canonical) {
		t.Fatalf("%q: access control saw %q, the app %q, %v", target, canonical, uri, err)
	}
	bare := regexp.MustCompile(`;[^/]*`).ReplaceAllString(strings.ToLower(u.Path), "")
	for _, p := range []string{strings.ToLower(u.Path), bare, path.Clean(bare)} {
		if p == "/neworder" || strings.HasPrefix(p, "/neworder/") || strings.HasPrefix(p, "/admin/") {
			t.Fatalf("%q got to the app as %q, which it may take for %q", target, uri, p)
		}
	}
}
