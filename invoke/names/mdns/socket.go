package mdns

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/penstock-io/penstock/fault"
)

// group is where mDNS is spoken.
func group() *net.UDPAddr { return &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353} }

// socket is one end of mDNS on every interface of the machine.
type socket struct {
	conn *ipv4.PacketConn

	mu     sync.Mutex // guards what follows
	looked time.Time
	links  []int // indexes of interfaces that take part
	own    map[netip.Addr]bool
}

// relook is how often interfaces are looked for: machines change networks.
const relook = 30 * time.Second

// listen opens the socket. Others of the machine may have it open too.
func listen() (*socket, error) {
	g := group()
	// A group as the address makes Go share the port.
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: g.Port})
	if err != nil {
		return nil, fault.Wrap(err, "open mDNS on port %d", g.Port)
	}
	s := &socket{conn: ipv4.NewPacketConn(c)}
	// Not every system can say where a datagram was sent to.
	_ = s.conn.SetControlMessage(ipv4.FlagDst, true)
	_ = s.conn.SetMulticastLoopback(true)
	if len(s.interfaces()) == 0 {
		_ = c.Close()
		return nil, fault.New(fault.Unavailable, "open mDNS: no interface of this machine takes part in multicast")
	}
	return s, nil
}

// interfaces returns those that take part, joining new ones: whatever is up and
// knows multicast, and loopback, which reaches the processes of this machine
// also where there is no network.
func (s *socket) interfaces() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.links) > 0 && time.Since(s.looked) < relook {
		return s.links
	}
	all, err := net.Interfaces()
	if err != nil {
		return s.links
	}
	known := map[int]bool{}
	for _, i := range s.links {
		known[i] = true
	}
	s.looked, s.links, s.own = time.Now(), nil, map[netip.Addr]bool{}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagMulticast|net.FlagLoopback) == 0 {
			continue
		}
		if s.conn.JoinGroup(&i, group()) == nil || known[i.Index] {
			s.links = append(s.links, i.Index)
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					s.own[ip.Unmap()] = true
				}
			}
		}
	}
	return s.links
}

// send sends a message on every interface. The error is that of the last one,
// when none could take it.
func (s *socket) send(msg []byte) error {
	var last error
	sent := false
	for _, i := range s.interfaces() {
		if _, err := s.conn.WriteTo(msg, &ipv4.ControlMessage{IfIndex: i}, group()); err != nil {
			last = err
			continue
		}
		sent = true
	}
	switch {
	case sent:
		return nil
	case last == nil:
		return fault.New(fault.Unavailable, "send by multicast: no interface takes part")
	}
	return fault.Wrap(last, "send by multicast")
}

// receive reads one message and tells whether it came from this machine. What
// was not sent to the group is skipped: only the link's own machines can do that.
func (s *socket) receive(buf []byte) (msg []byte, local bool, err error) {
	for {
		n, cm, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return nil, false, err
		}
		if cm != nil && cm.Dst != nil && !cm.Dst.IsMulticast() {
			continue
		}
		return buf[:n], s.isOwn(from), nil
	}
}

func (s *socket) isOwn(from net.Addr) bool {
	a, ok := from.(*net.UDPAddr)
	if !ok {
		return false
	}
	ip := a.AddrPort().Addr().Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	return ip.IsLoopback() || s.own[ip]
}

func (s *socket) close() { _ = s.conn.Close() }
