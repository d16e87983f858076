package rabbitmq

import (
	"testing"

	fake "github.com/penstock-io/penstock/test/fake/amqp"
)

func TestSuite(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, fake.Start(t).URL())
}
