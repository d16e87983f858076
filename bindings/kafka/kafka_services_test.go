//go:build services

package kafka

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestConformanceOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, services.Need(t, "kafka"))
}
