package http

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/resilience"
)

func TestInvokePassesEverythingOn(t *testing.T) {
	t.Parallel()
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Header.Del("Accept-Encoding")
		want := http.Header{"X-A": {"1", "2"}, "Dapr-Api-Token": {"app-token"}, "Content-Type": {"text/x"}, "Authorization": {"Bearer t"}}
		delete(r.Header, "Content-Length")
		if diff := cmp.Diff(want, r.Header); diff != "" {
			t.Error(diff)
		}
		if r.Method != "PURGE" || r.RequestURI != "/a%2Fb/%20;x?q=1;&&" || string(body) != "the body" || r.Trailer.Get("X-Sum") != "9" {
			t.Errorf("%s %s %q %v", r.Method, r.RequestURI, body, r.Trailer)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Dapr-Api-Token", "app-token")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, "moved")
		w.Header().Set("X-Sum", "5")
	})
	c := channel(t, at, Options{Token: "app-token"})
	r := &msg.Request{
		Verb: "PURGE", Path: "a%2Fb/%20;x", Query: "q=1;&&", Body: io.NopCloser(strings.NewReader("the body")), Length: -1,
		Header: http.Header{
			"X-A": {"1", "2"}, "Dapr-Api-Token": {"callers"}, "Content-Type": {"text/x"}, "Authorization": {"Bearer t"}, "Te": {"trailers"},
			"Connection": {"x-hop"}, "X-Hop": {"1"}, "X-Raw-Bin": {"\x00"}, "User-Agent": nil,
		},
		Trailer: http.Header{"X-Sum": {"9"}},
	}
	answer, err := c.Invoke(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.Status != http.StatusFound || string(body) != "moved" || answer.Header.Get("Location") != "/elsewhere" {
		t.Errorf("%d %q %v %v", answer.Status, body, answer.Header, err)
	}
	if answer.Trailer.Get("X-Sum") != "5" || answer.Header.Get("Dapr-Api-Token") != "" || answer.Header.Get("X-Hop") != "" {
		t.Errorf("%v %v", answer.Header, answer.Trailer)
	}
}

func TestInvokeOfAnAppThatIsNotThere(t *testing.T) {
	t.Parallel()
	at := serve(t, nil)
	c := channel(t, at, Options{Port: 1})
	c.address = "127.0.0.1:1"
	_, err := c.Invoke(t.Context(), &msg.Request{Verb: "GET", Path: "x", Header: http.Header{}})
	if fault.KindOf(err) != fault.Unavailable || !errors.Is(err, resilience.ErrOpen) {
		t.Errorf("%v", err)
	}
	if _, err := c.Invoke(t.Context(), &msg.Request{Path: "x", Header: http.Header{}, RPC: true}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a call without a verb: %v", err)
	}
}
