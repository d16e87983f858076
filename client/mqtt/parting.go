package mqtt

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// lastWords is how long a server may take to read what was sent before the end of
// a connection.
const lastWords = 2 * time.Second

// parting is a connection that can be closed without taking back what was sent
// last. A plain close answers whatever the server still sends, and it sends the
// next message for each acknowledgement, with a reset: then the server drops the
// connection, with the acknowledgements in it that it has not read.
type parting struct {
	net.Conn
	leaving atomic.Bool
}

// leave makes Close wait until the server has read everything and closed too, for
// lastWords at most.
func (p *parting) leave() { p.leaving.Store(true) }

// Close implements [net.Conn].
func (p *parting) Close() error {
	half, ok := p.Conn.(interface{ CloseWrite() error })
	if ok && p.leaving.Swap(false) && half.CloseWrite() == nil {
		_ = p.SetReadDeadline(time.Now().Add(lastWords))
		_, _ = io.Copy(io.Discard, p.Conn) // until the server closes, or not in time
	}
	return p.Conn.Close()
}
