package peer

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/penstock-io/penstock/invoke/proxy"
)

// pieceSize is a buffer for a message with a piece of a body: the chunk and what is
// around it.
const pieceSize = chunk + 4<<10

// codec is gRPC's for protobuf but for the buffers that messages are written into
// and read from. Gathered in gRPC's own pool, a message of a little more than 32 KiB
// is a buffer of 1 MiB, which is cleared each time; that took most of the time of a
// body.
type codec struct {
	encoding.CodecV2
	pool mem.BufferPool
}

// newCodec makes a codec for the services of sidecars; what proxy's takes is left to
// that.
func newCodec() codec { return codec{proxy.Codec(), mem.NewTieredBufferPool(1<<10, 8<<10, pieceSize)} }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := proto.Size(m)
	if size > pieceSize || mem.IsBelowBufferPoolingThreshold(size) {
		return c.CodecV2.Marshal(v)
	}
	buf := c.pool.Get(size)
	if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend((*buf)[:0], m); err != nil {
		c.pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, c.pool)}, nil
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok || data.Len() > pieceSize {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(c.pool)
	defer buf.Free()
	return proto.Unmarshal(buf.ReadOnlyData(), m)
}
