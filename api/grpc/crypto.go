package grpc

import (
	"io"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/crypto"
)

// EncryptAlpha1 encrypts a stream as it arrives.
func (s *service) EncryptAlpha1(ss rtv1.Dapr_EncryptAlpha1Server) error {
	first, err := ss.Recv()
	if err != nil {
		return unbegun("encrypt", err)
	}
	arrived(ss.Context())
	o := first.GetOptions()
	if o == nil {
		return api.Errorf(api.BadRequest, "encrypt: the first message has no options")
	}
	in := &chunks{payload: first.GetPayload(), next: func() (*commonv1.StreamPayload, bool, error) {
		m, err := ss.Recv()
		return m.GetPayload(), m.GetOptions() != nil, err
	}}
	out, err := s.api.Encrypt(ss.Context(), o.GetComponentName(), &crypto.Request{
		Key: o.GetKeyName(), Algorithm: o.GetKeyWrapAlgorithm(), Cipher: o.GetDataEncryptionCipher(),
		OmitKey: o.GetOmitDecryptionKeyName(), DecryptionKey: o.GetDecryptionKeyName(),
	}, in)
	return in.answer(out, err, func(p *commonv1.StreamPayload) error { return ss.Send(&rtv1.EncryptResponse{Payload: p}) })
}

// DecryptAlpha1 decrypts a stream as it arrives.
func (s *service) DecryptAlpha1(ss rtv1.Dapr_DecryptAlpha1Server) error {
	first, err := ss.Recv()
	if err != nil {
		return unbegun("decrypt", err)
	}
	arrived(ss.Context())
	o := first.GetOptions()
	if o == nil {
		return api.Errorf(api.BadRequest, "decrypt: the first message has no options")
	}
	in := &chunks{payload: first.GetPayload(), next: func() (*commonv1.StreamPayload, bool, error) {
		m, err := ss.Recv()
		return m.GetPayload(), m.GetOptions() != nil, err
	}}
	out, err := s.api.Decrypt(ss.Context(), o.GetComponentName(), o.GetKeyName(), in)
	return in.answer(out, err, func(p *commonv1.StreamPayload) error { return ss.Send(&rtv1.DecryptResponse{Payload: p}) })
}

// unbegun is the error of a stream without a first message. One that just ends
// is what clients send that have no data, and with it no options either.
func unbegun(verb string, err error) error {
	if err == io.EOF {
		return api.Errorf(api.BadRequest, "%s: the stream ended before a message with options", verb)
	}
	return err
}

// chunks is the data of a stream of messages.
type chunks struct {
	payload *commonv1.StreamPayload // of the message that came last; may be nil
	next    func() (payload *commonv1.StreamPayload, options bool, err error)

	seq    uint64 // of the payload that comes next
	data   []byte // of the last one, not read yet
	failed error  // what ended the stream other than its end
}

// Read implements [io.Reader].
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		if err := c.take(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

// take makes the payload of the last message, or of the next, the data.
func (c *chunks) take() error {
	if c.payload == nil {
		payload, options, err := c.next()
		switch {
		case err == io.EOF:
			return err
		case err == nil && options:
			err = api.Errorf(api.BadRequest, "read stream: only the first message has options")
		}
		if err != nil {
			c.failed = err
			return err
		}
		c.payload = payload
	}
	if c.payload == nil {
		return nil
	}
	if got := c.payload.GetSeq(); got != c.seq {
		c.failed = api.Errorf(api.BadRequest, "read stream: message number %d where %d was to come", got, c.seq)
		return c.failed
	}
	c.data, c.payload = c.payload.GetData(), nil
	c.seq++
	return nil
}

// answer sends what comes out, one message for the header and one for each
// segment.
func (c *chunks) answer(out *api.CryptoStream, err error, send func(*commonv1.StreamPayload) error) error {
	if err == nil {
		_, err = out.WriteTo(&sender{send: send})
	}
	if c.failed != nil { // with the code that it had
		return c.failed
	}
	return err
}

// sender makes messages of what is written to it.
type sender struct {
	send func(*commonv1.StreamPayload) error
	seq  uint64
}

// Write implements [io.Writer]. The message is encoded when send returns.
func (s *sender) Write(p []byte) (int, error) {
	if err := s.send(&commonv1.StreamPayload{Data: p, Seq: s.seq}); err != nil {
		return 0, err
	}
	s.seq++
	return len(p), nil
}
