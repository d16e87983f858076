package proxy

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is that of servers which take calls of unknown services. Messages of the
// services that they do know are those of protobuf, as ever.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// codec passes frames through and leaves all else to protobuf's.
type codec struct{ encoding.CodecV2 }

// frame is one message as it came, in the buffers that it came in.
type frame struct{ data mem.BufferSlice }

func (f *frame) free() {
	f.data.Free()
	f.data = nil
}

// Marshal implements [encoding.CodecV2]. The caller frees what it gets, so the
// frame's own hold on it is still to be freed.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	f.data.Ref()
	return f.data, nil
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	data.Ref()
	f.data = data
	return nil
}

// Name implements [encoding.CodecV2]. It is the empty one, so that a call goes on
// under the name that it came with, none included.
func (codec) Name() string { return "" }
