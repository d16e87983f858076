//go:build services

package jetstream

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnARealServer(t *testing.T) { // not parallel: the suite counts goroutines
	conform.State(t, Component, setup(services.Need(t, "nats")))
}

func TestLayoutOnARealServer(t *testing.T) { layout(t, services.Need(t, "nats")) }
