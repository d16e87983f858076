//go:build services

package redis

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, services.Need(t, "redis"))
}
