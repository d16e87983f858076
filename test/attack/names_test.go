package attack

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// hostileNames is a resolver of names whose owner wants to be let in, B21: meta.test
// is the cloud's service of credentials, both.test is that and this machine,
// any name below fickle.test is this machine when it is asked for first, and the
// service ever after. No other name is known.
func hostileNames() *net.Resolver {
	var mu sync.Mutex
	asked := map[string]bool{}
	here, there := [4]byte{127, 0, 0, 1}, [4]byte{169, 254, 169, 254}
	addresses := func(name string) (list [][4]byte, known bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case name == "meta.test.":
			return [][4]byte{there}, true
		case name == "both.test.":
			return [][4]byte{there, here}, true
		case !strings.HasSuffix(name, ".fickle.test."):
			return nil, false
		case asked[name]:
			return [][4]byte{there}, true
		}
		asked[name] = true
		return [][4]byte{here}, true
	}
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return &nameServer{addresses: addresses}, nil
	}}
}

// nameServer is a connection to a server of DNS, over TCP as far as the resolver can
// tell. What is not here is not called.
type nameServer struct {
	net.Conn
	addresses func(name string) (list [][4]byte, known bool)
	answer    bytes.Buffer
}

// Write takes a question, with its length in front.
func (s *nameServer) Write(p []byte) (int, error) {
	var m dnsmessage.Message
	if err := m.Unpack(p[2:]); err != nil {
		return 0, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	if q.Type == dnsmessage.TypeA {
		list, known := s.addresses(strings.ToLower(q.Name.String()))
		if !known {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range list {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a},
			})
		}
	}
	out, err := m.AppendPack(make([]byte, 2, 512))
	if err != nil {
		return 0, err
	}
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	s.answer.Write(out)
	return len(p), nil
}

func (s *nameServer) Read(p []byte) (int, error)  { return s.answer.Read(p) }
func (s *nameServer) SetDeadline(time.Time) error { return nil }
func (s *nameServer) Close() error                { return nil }
