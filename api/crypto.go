package api

import (
	"context"
	"errors"
	"io"

	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/enc"
)

// CryptoStream is data that is encrypted or decrypted as it is read. Its errors
// are those of this package; one that the stream behind it returned as an
// [*Error] stays that one.
type CryptoStream struct {
	name   string // of the component
	stream *enc.Stream
}

// Encrypt returns the document of a stream of data, made with the component
// called provider. The key is wrapped, and the request checked, before it
// returns.
func (a *API) Encrypt(ctx context.Context, provider string, r *crypto.Request, in io.Reader) (*CryptoStream, error) {
	p, err := a.cryptoProvider(provider)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Key == "":
		return nil, Errorf(BadRequest, "encrypt: the name of the key is missing").on("crypto", provider)
	case r.Algorithm == "":
		return nil, Errorf(BadRequest, "encrypt: the key wrap algorithm is missing").on("crypto", provider)
	}
	s, err := p.Encrypt(ctx, r, in)
	return cryptoStream(provider, s, err)
}

// Decrypt returns the data of a document. A key that is not empty is used in
// place of the one that the document names. The header is read and checked
// before it returns.
func (a *API) Decrypt(ctx context.Context, provider, key string, in io.Reader) (*CryptoStream, error) {
	p, err := a.cryptoProvider(provider)
	if err != nil {
		return nil, err
	}
	s, err := p.Decrypt(ctx, key, in)
	return cryptoStream(provider, s, err)
}

func (a *API) cryptoProvider(name string) (*crypto.Provider, error) {
	if !a.rt.Configured("crypto") {
		return nil, Errorf(CryptoNotConfigured, "use crypto component %q: no crypto component is loaded", name).on("crypto", name)
	}
	p, err := a.rt.CryptoProvider(name)
	if err != nil {
		return nil, Errorf(CryptoNotFound, "use crypto component %q: %w", name, err).on("crypto", name)
	}
	return p, nil
}

func cryptoStream(name string, s *enc.Stream, err error) (*CryptoStream, error) {
	c := &CryptoStream{name: name, stream: s}
	if err != nil {
		return nil, c.explain(err)
	}
	return c, nil
}

// Read implements [io.Reader].
func (s *CryptoStream) Read(p []byte) (int, error) {
	n, err := s.stream.Read(p)
	return n, s.explain(err)
}

// WriteTo implements [io.WriterTo]: one Write for each segment.
func (s *CryptoStream) WriteTo(w io.Writer) (int64, error) {
	n, err := s.stream.WriteTo(w)
	return n, s.explain(err)
}

// explain gives an error its problem.
func (s *CryptoStream) explain(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return wrap(Crypto, err).on("crypto", s.name)
}
