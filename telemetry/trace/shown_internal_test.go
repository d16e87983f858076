package trace

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
)

// TestShown: a password or a key in an address is told to nobody.
func TestShown(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"http://u:p@ss@h:1/v1?key=k": "http://***@h:1/v1", "u:p@h:4317": "***@h:4317", "h:4317": "h:4317", "ftp://x": "ftp://x", "https://t@h": "https://***@h",
	} {
		if got := shown(endpoint); got != want {
			t.Errorf("%s is shown as %s, want %s", endpoint, got, want)
		}
	}
	err := plain(fmt.Errorf("x: %w", &url.Error{Op: "Post", URL: "http://u:p@h:9411/a?key=k", Err: errors.New("refused")}))
	if err.Error() != "send spans to h:9411: refused" {
		t.Error(err)
	}
	if err := errors.New("full"); plain(err) != err {
		t.Error("another error is changed")
	}
}
