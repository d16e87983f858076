//go:build services

package nats

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestCoreSuiteOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	coreSuite(t, services.Need(t, "nats"))
}

func TestStreamSuiteOnServer(t *testing.T) {
	streamSuite(t, services.Need(t, "nats"))
}
