package crypto

import (
	"cmp"
	"context"
	"io"
	"sync/atomic"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Provider is one configured crypto component: the type everybody but
// implementations uses.
type Provider struct {
	name     string
	instance *component.Instance[Driver]
	policy   atomic.Pointer[resilience.Policy] // of wrapping and unwrapping; nil: none
	calls    *telemetry.Calls                  // of wrapping and unwrapping
	tracer   *trace.Tracer
}

// New makes the provider of a component; nothing is opened before Run of its
// instance.
func New(def component.Definition, env component.Env, c config.Component) (*Provider, error) {
	return &Provider{
		name: c.Name, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout), calls: env.Metrics.Calls(telemetry.Crypto, c.Name), tracer: env.Tracer,
	}, nil
}

// Instance returns the component's life: opening, state, closing.
func (p *Provider) Instance() *component.Instance[Driver] { return p.instance }

// Name returns the component's name.
func (p *Provider) Name() string { return p.name }

// SetPolicy changes what every wrapping and unwrapping runs under; nil is no
// policy. Those under way go on with the old one. The data itself is under none:
// a stream cannot be read twice.
func (p *Provider) SetPolicy(policy *resilience.Policy) { p.policy.Store(policy) }

// Request says how a stream is to be encrypted.
type Request struct {
	// Key is the name of the key that wraps the file key.
	Key string
	// Algorithm is how it does that: one of enc.ParseAlgorithm.
	Algorithm string
	// Cipher seals the data: one of enc.ParseCipher, AES-GCM when empty.
	Cipher string
	// OmitKey leaves the name of the key out of the document, so that whoever
	// decrypts it has to know.
	OmitKey bool
	// DecryptionKey is the name that stands in the document; Key when empty.
	DecryptionKey string
}

// manifest checks the request.
func (r *Request) manifest() (enc.Manifest, error) {
	var m enc.Manifest
	if r.Key == "" {
		return m, fault.New(fault.Invalid, "the name of the key is missing")
	}
	var err error
	if m.Algorithm, err = enc.ParseAlgorithm(r.Algorithm); err != nil {
		return m, err
	}
	if m.Cipher, err = enc.ParseCipher(r.Cipher); err != nil {
		return m, err
	}
	if !r.OmitKey {
		m.Key = cmp.Or(r.DecryptionKey, r.Key)
	}
	return m, nil
}

// Encrypt returns the document of a stream of data, which is encrypted as it is
// read. The key is wrapped before Encrypt returns. Kinds: Invalid for a wrong
// request and a key that cannot wrap, NotFound when there is no such key,
// Unavailable while the component is opening.
func (p *Provider) Encrypt(ctx context.Context, r *Request, in io.Reader) (*enc.Stream, error) {
	m, err := r.manifest()
	if err != nil {
		return nil, fault.Wrap(err, "encrypt with %s", p.name)
	}
	s, err := enc.Encrypt(in, m, func(fileKey []byte) ([]byte, error) {
		return p.call(ctx, func(ctx context.Context, d Driver) ([]byte, error) {
			return d.WrapKey(ctx, r.Key, m.Algorithm, fileKey)
		})
	})
	if err != nil {
		return nil, fault.Wrap(err, "encrypt with key %.100q of %s", r.Key, p.name)
	}
	return s, nil
}

// Decrypt returns the data of a document, which is decrypted as it is read, each
// segment after it was authenticated. The key is the one that the document
// names, or the one called key if that is not empty. Kinds: Invalid when the
// document cannot be decrypted, and no more is told than [enc.Decrypt] does;
// Unavailable while the component is opening.
func (p *Provider) Decrypt(ctx context.Context, key string, in io.Reader) (*enc.Stream, error) {
	var unnamed error
	s, err := enc.Decrypt(in, func(m *enc.Manifest) ([]byte, error) {
		name := cmp.Or(key, m.Key)
		if name == "" {
			unnamed = fault.New(fault.Invalid, "decrypt with %s: the document names no key; say which one", p.name)
			return nil, unnamed
		}
		return p.call(ctx, func(ctx context.Context, d Driver) ([]byte, error) {
			return d.UnwrapKey(ctx, name, m.Algorithm, m.WrappedKey)
		})
	})
	if unnamed != nil {
		return nil, unnamed
	}
	if err != nil {
		return nil, fault.Wrap(err, "decrypt with %s", p.name)
	}
	return s, nil
}

// call asks the driver, under the policy.
func (p *Provider) call(ctx context.Context, ask func(context.Context, Driver) ([]byte, error)) ([]byte, error) {
	var out []byte
	try := func(ctx context.Context) error {
		d, err := p.instance.Acquire()
		if err != nil {
			if p.instance.State().Word == component.Closed { // it does not open again
				err = resilience.Final(err)
			}
			return err
		}
		defer p.instance.Release()
		out, err = ask(ctx, d)
		return p.instance.Hide(err)
	}
	began := p.calls.Begin()
	ctx, span := p.tracer.Call(ctx, "crypto", p.name, "crypto_op")
	var err error
	if policy := p.policy.Load(); policy != nil {
		err = policy.Do(ctx, try)
	} else {
		err = try(ctx)
	}
	span.Done(err)
	p.calls.Done("crypto_op", began, err)
	return out, err
}
