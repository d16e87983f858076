package etcd

import (
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Fields of the envelope of version v2, a message of protocol buffers, and of the
// seconds in google.protobuf.Timestamp and Duration.
const (
	fieldData    = 1
	fieldTime    = 2
	fieldTTL     = 3
	fieldSeconds = 1
)

// encode makes what is stored of a value.
func (s *store) encode(c *state.Change) string {
	if !s.v2 {
		return string(c.Value)
	}
	var b []byte
	b = protowire.AppendTag(b, fieldData, protowire.BytesType)
	b = protowire.AppendBytes(b, c.Value)
	b = appendSeconds(b, fieldTime, time.Now().Unix())
	if c.TTL > 0 {
		b = appendSeconds(b, fieldTTL, int64(state.Whole(c.TTL)/time.Second))
	}
	return string(b)
}

func appendSeconds(b []byte, field protowire.Number, seconds int64) []byte {
	inner := protowire.AppendVarint(protowire.AppendTag(nil, fieldSeconds, protowire.VarintType), uint64(seconds))
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), inner)
}

// item makes an item of what a read of one key found.
func (s *store) item(found []*mvccpb.KeyValue) state.Item {
	if len(found) == 0 {
		return state.Item{}
	}
	it := state.Item{Found: true, Value: found[0].Value, ETag: strconv.FormatInt(found[0].ModRevision, 10)}
	if s.v2 {
		it.Value, it.Expires, it.Err = decode(found[0].Value)
	}
	if it.Value == nil {
		it.Value = []byte{}
	}
	return it
}

// decode reads an envelope. A time to live of zero is none: Dapr writes one with
// every value.
func decode(b []byte) (value []byte, expires time.Time, err error) {
	var at, ttl int64
	err = fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		var err error
		switch field {
		case fieldData:
			value = v
		case fieldTime:
			at, err = seconds(v)
		case fieldTTL:
			ttl, err = seconds(v)
		}
		return err
	})
	if err != nil {
		return nil, time.Time{}, fault.New(fault.Invalid, "read value: it is not in the layout of version v2")
	}
	if ttl > 0 {
		expires = time.Unix(at+ttl, 0)
	}
	return value, expires, nil
}

func seconds(b []byte) (n int64, err error) {
	err = fields(b, func(field protowire.Number, _ []byte, v uint64) error {
		if field == fieldSeconds {
			n = int64(v)
		}
		return nil
	})
	return n, err
}

// fields calls do for every field of a message, with its bytes or its number.
func fields(b []byte, do func(field protowire.Number, bytes []byte, number uint64) error) error {
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var bytes []byte
		var number uint64
		switch typ {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(field, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := do(field, bytes, number); err != nil {
			return err
		}
	}
	return nil
}
