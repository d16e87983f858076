package mdns

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-io/penstock/fault"
)

// domain is where all names are.
const domain = ".local."

// cacheFlush is the bit of a record's class that says it replaces others; the
// same bit of a question's asks for an answer to the asker alone.
const cacheFlush = 1 << 15

// found is one instance that a message told of.
type found struct {
	app      string
	instance string
	address  string // host:port
	ttl      uint32 // seconds; zero: it is gone
}

// question asks for the instances of an app.
func question(app string) ([]byte, error) {
	name, err := dnsmessage.NewName(app + domain)
	if err != nil {
		return nil, unfit(app)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	if err := b.StartQuestions(); err != nil {
		return nil, fault.Wrap(err, "pack question")
	}
	if err := b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}); err != nil {
		return nil, unfit(app)
	}
	return b.Finish()
}

func unfit(app string) error {
	const most = 63
	return fault.New(fault.NotFound, "id %.80q cannot be a name of mDNS: its parts have 1 to %d bytes", app, most)
}

// service is one instance as it is told to others.
type service struct {
	app, instance, host string
	ip                  netip.Addr
	port                int
}

// name is that of the instance.
func (s service) name() string { return s.instance + "." + s.app + domain }

// answer tells of the service: its pointer, and with it all that is needed to
// reach it. A ttl of zero takes it back.
func (s service) answer(ttl uint32) ([]byte, error) {
	var names [3]dnsmessage.Name
	for i, text := range []string{s.app + domain, s.name(), s.host + domain} {
		n, err := dnsmessage.NewName(text)
		if err != nil {
			return nil, unfit(text)
		}
		names[i] = n
	}
	header := func(n dnsmessage.Name, class dnsmessage.Class) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: n, Class: class, TTL: ttl}
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	own := dnsmessage.Class(dnsmessage.ClassINET | cacheFlush)
	steps := []func() error{
		b.StartAnswers,
		func() error {
			return b.PTRResource(header(names[0], dnsmessage.ClassINET), dnsmessage.PTRResource{PTR: names[1]})
		},
		b.StartAdditionals,
		func() error {
			return b.SRVResource(header(names[1], own), dnsmessage.SRVResource{Port: uint16(s.port), Target: names[2]})
		},
		func() error {
			return b.TXTResource(header(names[1], own), dnsmessage.TXTResource{TXT: []string{s.app}})
		},
		func() error {
			// The host's name may be that of many processes: no flush.
			if s.ip.Is4() {
				return b.AResource(header(names[2], dnsmessage.ClassINET), dnsmessage.AResource{A: s.ip.As4()})
			}
			return b.AAAAResource(header(names[2], dnsmessage.ClassINET), dnsmessage.AAAAResource{AAAA: s.ip.As16()})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fault.As(fault.Invalid, fault.Wrap(err, "pack answer of %.80q", s.app))
		}
	}
	return b.Finish()
}

// asksFor tells whether a message asks for the service.
func (s service) asksFor(msg []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return false
	}
	for {
		q, err := p.Question()
		if err != nil {
			return false
		}
		name := q.Name.String()
		ofService := strings.EqualFold(name, s.app+domain) && (q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL)
		if (ofService || strings.EqualFold(name, s.name())) && q.Class&^cacheFlush == dnsmessage.ClassINET {
			return true
		}
	}
}

// records are those of one message that may be about an app.
type records struct {
	wanted   func(app string) bool
	pointers map[string]pointer // by the instance's name
	ports    map[string]dnsmessage.SRVResource
	texts    map[string]string // the first one of an instance
	hosts    map[string][]netip.Addr
}

type pointer struct {
	app string
	ttl uint32
}

// maxRecords is how many of a message are looked at.
const maxRecords = 256

// read returns the instances of wanted apps that a message tells of. Everything
// that is needed to reach one is in one message, as Dapr sends it. local says
// whether the message came from this machine: only then can loopback be an
// address.
func read(msg []byte, wanted func(app string) bool, local bool) []found {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || p.SkipAllQuestions() != nil {
		return nil
	}
	r := records{wanted: wanted, pointers: map[string]pointer{}, ports: map[string]dnsmessage.SRVResource{}, texts: map[string]string{}, hosts: map[string][]netip.Addr{}}
	type section struct {
		header func() (dnsmessage.ResourceHeader, error)
		skip   func() error
	}
	n := 0
	for _, s := range []section{{p.AnswerHeader, p.SkipAnswer}, {p.AuthorityHeader, p.SkipAuthority}, {p.AdditionalHeader, p.SkipAdditional}} {
		for ; n < maxRecords; n++ {
			h, err := s.header()
			if err != nil {
				break // the end, or nothing readable comes after it
			}
			if !r.take(&p, h) && s.skip() != nil {
				break
			}
		}
	}
	return r.found(local)
}

// take keeps a record when it may be of use, and tells whether it was read.
func (r *records) take(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) bool {
	name := h.Name.String()
	var err error
	switch h.Type {
	case dnsmessage.TypePTR:
		app, ok := strings.CutSuffix(name, domain)
		if !ok || !r.wanted(app) {
			return false
		}
		var v dnsmessage.PTRResource
		if v, err = p.PTRResource(); err == nil {
			r.pointers[v.PTR.String()] = pointer{app, h.TTL}
		}
	case dnsmessage.TypeSRV:
		var v dnsmessage.SRVResource
		if v, err = p.SRVResource(); err == nil {
			r.ports[name] = v
		}
	case dnsmessage.TypeTXT:
		var v dnsmessage.TXTResource
		if v, err = p.TXTResource(); err == nil && len(v.TXT) > 0 {
			r.texts[name] = v.TXT[0]
		}
	case dnsmessage.TypeA:
		var v dnsmessage.AResource
		if v, err = p.AResource(); err == nil {
			r.hosts[name] = append(r.hosts[name], netip.AddrFrom4(v.A))
		}
	case dnsmessage.TypeAAAA:
		var v dnsmessage.AAAAResource
		if v, err = p.AAAAResource(); err == nil {
			r.hosts[name] = append(r.hosts[name], netip.AddrFrom16(v.AAAA).Unmap())
		}
	default:
		return false
	}
	return err == nil
}

// found puts the records together. The text tells apps apart that differ in
// case only.
func (r *records) found(local bool) []found {
	var list []found
	for name, to := range r.pointers {
		f := found{app: to.app, instance: name, ttl: to.ttl}
		if f.ttl > 0 {
			srv := r.ports[name]
			ip := choose(r.hosts[srv.Target.String()], local)
			if srv.Port == 0 || r.texts[name] != to.app || !ip.IsValid() {
				continue
			}
			f.address = net.JoinHostPort(ip.String(), strconv.Itoa(int(srv.Port)))
		}
		list = append(list, f)
	}
	return list
}

// choose takes the first address of IPv4, else the first of all, leaving out
// those that cannot mean another machine.
func choose(all []netip.Addr, local bool) (best netip.Addr) {
	for _, a := range all {
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() && !local || a.IsLinkLocalUnicast() && a.Is6() {
			continue
		}
		if !best.IsValid() || a.Is4() && !best.Is4() {
			best = a
		}
	}
	return best
}
