//go:build services

package rabbitmq

import (
	"os"
	"testing"
)

func TestSuitesOnServer(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, os.Getenv("PENSTOCK_TEST_RABBITMQ"))
}

func TestCasesOnServer(t *testing.T) { cases(t, os.Getenv("PENSTOCK_TEST_RABBITMQ")) }
