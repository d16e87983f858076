package invoke_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
)

func TestABrokenBodyIsNotSentAgain(t *testing.T) {
	t.Parallel()
	o := &others{call: func(_ int, _, _ string, r *message.Request) (*message.Response, error) {
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the body is whole")
		}
		return nil, failed(14)
	}}
	v := invoke.New(invoke.Options{AppID: "me", Finder: o, Peers: o})
	t.Cleanup(v.Close)
	r := post("")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("broken"))))
	r.Length = -1
	if _, err := v.Do(t.Context(), "you", r); fault.KindOf(err) != fault.Unavailable || o.n != 1 {
		t.Errorf("%d tries, %v", o.n, err)
	}
}
