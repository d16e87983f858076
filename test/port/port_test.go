package port_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/penstock-io/penstock/test/port"
)

func TestFreePortsCanBeListenedOn(t *testing.T) {
	t.Parallel()
	for range 20 {
		p, err := port.Free()
		if err != nil {
			t.Fatal(err)
		}
		if p < 15000 || p >= 32000 {
			t.Errorf("port %d is one that the system hands out", p)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			t.Error(err)
			continue
		}
		defer l.Close()
	}
}
