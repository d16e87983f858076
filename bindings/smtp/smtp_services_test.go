//go:build services

package smtp

import (
	"net/url"
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	u, err := url.Parse(services.Need(t, "smtp"))
	if err != nil {
		t.Fatal(err)
	}
	options := settings(u.Host)
	options["startTLS"] = "always"
	suite(t, options, maildir(u.Query().Get("maildir")))
}
