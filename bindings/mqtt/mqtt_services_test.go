//go:build services

package mqtt

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestSuiteOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, services.Need(t, "mqtt"))
}
