package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
)

// TestTheLastRequestsAreRemembered: those that were refused too, and of what a
// sender wrote only what was believed.
func TestTheLastRequestsAreRemembered(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "signature", "hmac", "secret", "s3cret", "path", "/hooks/in", "idHeader", "X-Id", "signatureHeader", "X-Sum")
	if h := r.Hook(); h.URL != "http://"+r.listener.address+"/hooks/in" || h.Path != "/hooks/in" || h.Signature != "hmac" || h.Taking {
		t.Errorf("before it is read: %+v", h)
	}
	run(t, r, ack)
	const body = `{"a": 1}`
	send(t, r, "POST", "/hooks/in", body, signedHeaders(r.hook.scheme, "", body, "X-Id", "id-7")...).want(t, http.StatusOK, "ack")
	send(t, r, "POST", "/hooks/in", "<script>", "X-Id", "evil").want(t, http.StatusUnauthorized, "")
	send(t, r, "DELETE", "/hooks/in", "").want(t, http.StatusMethodNotAllowed, "")
	h := r.Hook()
	var got []string
	for _, q := range h.Requests {
		got = append(got, strings.Join(append([]string{q.Method, strconv.Itoa(q.Status), q.Answer}, q.IDs...), " "))
		if q.Time.IsZero() || q.Remote == "" || q.Duration < 0 {
			t.Errorf("of %s is kept %+v", q.Method, q)
		}
	}
	want := []string{"DELETE 405 this webhook takes POST", "POST 401 unauthorized", `POST 200 {"outcome":"ack","events":1} id-7`}
	if diff := cmp.Diff(want, got); diff != "" || !h.Taking {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for range 2 * bindings.MaxRequests {
		send(t, r, "PATCH", "/hooks/in", "")
	}
	if n := len(r.Hook().Requests); n != bindings.MaxRequests {
		t.Errorf("%d are remembered", n)
	}
}
