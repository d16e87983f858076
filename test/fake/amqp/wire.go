package amqp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// The kinds of frames.
const (
	frameMethod, frameHeader, frameBody, frameHeartbeat = 1, 2, 3, 8
	frameEnd                                            = 0xCE
	frameMax                                            = 128 << 10
)

type frame struct {
	kind    byte
	channel uint16
	payload []byte
}

func readFrame(r *bufio.Reader) (frame, error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > frameMax {
		return frame{}, fmt.Errorf("frame of %d bytes", size)
	}
	payload := make([]byte, size+1)
	if _, err := io.ReadFull(r, payload); err != nil {
		return frame{}, err
	}
	if payload[size] != frameEnd {
		return frame{}, errors.New("frame does not end where it should")
	}
	return frame{head[0], binary.BigEndian.Uint16(head[1:]), payload[:size]}, nil
}

func (f frame) append(b []byte) []byte {
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint16(b, f.channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	return append(append(b, f.payload...), frameEnd)
}

// table is a field table: names to values of the types that value knows.
type table map[string]any

// in reads the arguments of a method. What is too short panics, which ends the
// connection.
type in struct{ b []byte }

func (r *in) take(n int) []byte {
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *in) octet() byte      { return r.take(1)[0] }
func (r *in) short() uint16    { return binary.BigEndian.Uint16(r.take(2)) }
func (r *in) long() uint32     { return binary.BigEndian.Uint32(r.take(4)) }
func (r *in) huge() uint64     { return binary.BigEndian.Uint64(r.take(8)) }
func (r *in) text() string     { return string(r.take(int(r.octet()))) }
func (r *in) longtext() string { return string(r.take(int(r.long()))) }

func (r *in) table() table {
	inner := in{r.take(int(r.long()))}
	t := table{}
	for len(inner.b) > 0 {
		name := inner.text()
		t[name] = inner.value()
	}
	return t
}

func (r *in) value() any {
	switch kind := r.octet(); kind {
	case 't':
		return r.octet() != 0
	case 'b':
		return int8(r.octet())
	case 'B':
		return r.octet()
	case 's':
		return int16(r.short())
	case 'I':
		return int32(r.long())
	case 'l':
		return int64(r.huge())
	case 'f':
		return math.Float32frombits(r.long())
	case 'd':
		return math.Float64frombits(r.huge())
	case 'S':
		return r.longtext()
	case 'x':
		return []byte(r.longtext())
	case 'T':
		return time.Unix(int64(r.huge()), 0).UTC()
	case 'F':
		return r.table()
	case 'V':
		return nil
	case 'A':
		inner := in{r.take(int(r.long()))}
		list := []any{}
		for len(inner.b) > 0 {
			list = append(list, inner.value())
		}
		return list
	default:
		panic(fmt.Sprintf("field of type %q", kind))
	}
}

// out writes the arguments of a method.
type out struct{ b []byte }

// method begins a method.
func method(class, id uint16) *out {
	w := &out{}
	return w.short(class).short(id)
}

func (w *out) octet(v byte) *out   { w.b = append(w.b, v); return w }
func (w *out) short(v uint16) *out { w.b = binary.BigEndian.AppendUint16(w.b, v); return w }
func (w *out) long(v uint32) *out  { w.b = binary.BigEndian.AppendUint32(w.b, v); return w }
func (w *out) huge(v uint64) *out  { w.b = binary.BigEndian.AppendUint64(w.b, v); return w }
func (w *out) text(v string) *out  { w.octet(byte(len(v))); w.b = append(w.b, v...); return w }

func (w *out) longtext(v string) *out {
	w.long(uint32(len(v)))
	w.b = append(w.b, v...)
	return w
}

func (w *out) bool(v bool) *out {
	if v {
		return w.octet(1)
	}
	return w.octet(0)
}

func (w *out) table(t table) *out {
	inner := &out{}
	for name, v := range t {
		inner.text(name).value(v)
	}
	return w.longtext(string(inner.b))
}

func (w *out) value(v any) *out {
	switch v := v.(type) {
	case bool:
		return w.octet('t').bool(v)
	case int8:
		return w.octet('b').octet(byte(v))
	case byte:
		return w.octet('B').octet(v)
	case int16:
		return w.octet('s').short(uint16(v))
	case int32:
		return w.octet('I').long(uint32(v))
	case int64:
		return w.octet('l').huge(uint64(v))
	case float32:
		return w.octet('f').long(math.Float32bits(v))
	case float64:
		return w.octet('d').huge(math.Float64bits(v))
	case string:
		return w.octet('S').longtext(v)
	case []byte:
		return w.octet('x').longtext(string(v))
	case time.Time:
		return w.octet('T').huge(uint64(v.Unix()))
	case table:
		return w.octet('F').table(v)
	case []any:
		inner := &out{}
		for _, e := range v {
			inner.value(e)
		}
		return w.octet('A').longtext(string(inner.b))
	default:
		return w.octet('V')
	}
}

// properties are those of a message.
type properties struct {
	texts     map[int]string // by bit
	headers   table
	mode      byte
	priority  byte
	timestamp uint64
	flags     uint16
}

const (
	bitHeaders, bitMode, bitPriority, bitExpiration, bitTimestamp = 13, 12, 11, 8, 6
	bitLast                                                       = 2
)

func readProperties(r *in) properties {
	p := properties{flags: r.short(), texts: map[int]string{}}
	for bit := 15; bit >= bitLast; bit-- {
		if p.flags&(1<<bit) == 0 {
			continue
		}
		switch bit {
		case bitHeaders:
			p.headers = r.table()
		case bitMode:
			p.mode = r.octet()
		case bitPriority:
			p.priority = r.octet()
		case bitTimestamp:
			p.timestamp = r.huge()
		default:
			p.texts[bit] = r.text()
		}
	}
	return p
}

func (p properties) append(w *out) *out {
	w.short(p.flags)
	for bit := 15; bit >= bitLast; bit-- {
		if p.flags&(1<<bit) == 0 {
			continue
		}
		switch bit {
		case bitHeaders:
			w.table(p.headers)
		case bitMode:
			w.octet(p.mode)
		case bitPriority:
			w.octet(p.priority)
		case bitTimestamp:
			w.huge(p.timestamp)
		default:
			w.text(p.texts[bit])
		}
	}
	return w
}
