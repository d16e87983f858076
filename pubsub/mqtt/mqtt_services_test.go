//go:build services

package mqtt

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestServiceConform(t *testing.T) {
	suite(t, Component3, services.Need(t, "mqtt"))
}

func TestServiceWatermillSuite(t *testing.T) {
	watermill(t, Component3, services.Need(t, "mqtt"))
}
