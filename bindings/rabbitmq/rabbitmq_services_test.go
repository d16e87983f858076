//go:build services

package rabbitmq

import (
	"os"
	"testing"
)

func TestSuiteOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, os.Getenv("PENSTOCK_TEST_RABBITMQ"))
}
