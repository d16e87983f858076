package peer

import (
	"bytes"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// pools counts what is taken from a pool and given back.
type pools struct {
	mem.BufferPool
	out, most int
}

// Get implements mem.BufferPool.
func (p *pools) Get(size int) *[]byte {
	buf := p.BufferPool.Get(size)
	p.out++
	p.most = max(p.most, cap(*buf))
	return buf
}

// Put implements mem.BufferPool.
func (p *pools) Put(buf *[]byte) {
	p.out--
	p.BufferPool.Put(buf)
}

// TestMessagesAreThoseOfGRPC holds that the codec writes what gRPC's own reads, and
// the other way round, and that a piece takes no more memory than it has.
func TestMessagesAreThoseOfGRPC(t *testing.T) {
	t.Parallel()
	stock := encoding.GetCodecV2(grpcproto.Name)
	for _, size := range []int{0, 1, 1 << 10, 4 << 10, chunk - 1, chunk, pieceSize, pieceSize + 1, 1 << 20} {
		c := newCodec()
		p := &pools{BufferPool: c.pool}
		c.pool = p
		want := &internalv1.InternalInvokeRequestStream{Payload: &commonv1.StreamPayload{Data: bytes.Repeat([]byte("x"), size), Seq: 7}}
		for name, pair := range map[string][2]encoding.CodecV2{"to stock": {c, stock}, "from stock": {stock, c}, "between two": {c, c}} {
			data, err := pair[0].Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			// gRPC hands over what came in frames.
			var frames mem.BufferSlice
			for rest := data.Materialize(); len(rest) > 0; {
				n := min(len(rest), 16<<10)
				frames, rest = append(frames, mem.SliceBuffer(rest[:n])), rest[n:]
			}
			got := &internalv1.InternalInvokeRequestStream{}
			if err := pair[1].Unmarshal(frames, got); err != nil || !proto.Equal(want, got) {
				t.Errorf("%d bytes %s: %v", size, name, err)
			}
			data.Free()
		}
		if p.out != 0 || p.most > pieceSize {
			t.Errorf("%d bytes: %d buffers are missing, the largest had %d", size, p.out, p.most)
		}
	}
}
