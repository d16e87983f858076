package rabbitmq

import (
	"testing"

	fake "github.com/penstock-io/penstock/test/fake/amqp"
)

func TestSuites(t *testing.T) { // not parallel: the suites count goroutines
	suites(t, fake.Start(t).URL())
}
