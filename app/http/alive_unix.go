//go:build unix

package http

import "syscall"

// glance looks at a connection without waiting.
type glance struct {
	raw  syscall.RawConn
	look func(fd uintptr)
	err  error // what look found
}

// quiet tells whether there is nothing to read on an idle connection, not even
// its end. It costs a system call.
func quiet(l *line) bool {
	g := &l.glance
	if g.raw == nil {
		sc, ok := l.Conn.(syscall.Conn)
		if !ok {
			return false
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return false
		}
		g.raw = raw
		g.look = func(fd uintptr) {
			var one [1]byte
			_, _, g.err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		}
	}
	// Go's sockets do not block, so nothing to read is an error, and the end is
	// none.
	return g.raw.Control(g.look) == nil && (g.err == syscall.EAGAIN || g.err == syscall.EWOULDBLOCK)
}
