//go:build services

package redis

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestSuitesOnServer(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, services.Need(t, "redis"))
}

func TestCasesOnServer(t *testing.T) { cases(t, services.Need(t, "redis")) }
