// Package port finds ports for tests that must know one before the server that
// is under test listens on it.
//
// A test calls Free and hands the number to the server; a test that can hand
// over a listener, or read the address from the server, has no need of it.
//
// The system gives ports of this range to nobody who asks for any port: tests
// that run at the same time, and connections they make, do not take it away
// before the server has it.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports of Free. They are below those that the system hands out, which
// begin at 32768 on Linux and higher elsewhere.
const (
	low  = 15000
	high = 32000
)

// Free returns a port of 127.0.0.1 that nobody listens on: one of 17,000, taken
// at random. It fails when a hundred of them are in use.
func Free() (int, error) {
	var last error
	for range 100 {
		p := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			last = err
			continue
		}
		return p, l.Close()
	}
	return 0, errors.Join(errors.New("find a free port: all that were tried are in use"), last)
}
