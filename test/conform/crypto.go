package conform

import (
	"bytes"
	"crypto/rand"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/enc"
	"github.com/penstock-io/penstock/fault"
)

// CryptoSetup says which keys a crypto component has.
type CryptoSetup struct {
	// Options makes working options and the keys behind them.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
	// Keys are names of keys, each with an algorithm it can wrap and unwrap
	// with.
	Keys map[string]enc.Algorithm
	// Unfit are names of keys, each with an algorithm it cannot be used with.
	Unfit map[string]enc.Algorithm
	// Missing are names that there are no keys of.
	Missing []string
}

// Crypto runs the suite of crypto components.
func Crypto(t *testing.T, def component.Definition, setup CryptoSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, crypto.Driver, CryptoSetup){
		"wrap and unwrap": cryptoKeys, "other keys": cryptoOthers, "no such key": cryptoMissing,
		"unfit keys": cryptoUnfit, "concurrent use": cryptoConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			d := opened(t, def, environment(t), setup.Options(t))
			provider, ok := d.(crypto.Driver)
			if !ok {
				t.Fatalf("%T does not implement crypto.Driver", d)
			}
			run(t, provider, setup)
			shut(t, d)
			shut(t, d)
		})
	}
	t.Run("streams", func(t *testing.T) {
		noLeak(t)
		cryptoStreams(t, def, setup)
	})
}

func fileKey() []byte {
	key := make([]byte, enc.FileKeySize)
	_, _ = rand.Read(key) // never fails
	return key
}

func cryptoKeys(t *testing.T, d crypto.Driver, setup CryptoSetup) {
	for name, a := range setup.Keys {
		key := fileKey()
		sent := bytes.Clone(key)
		wrapped, err := d.WrapKey(t.Context(), name, a, sent)
		if err != nil {
			t.Errorf("wrap with %q and %v: %v", name, a, err)
			continue
		}
		if !bytes.Equal(sent, key) || bytes.Contains(wrapped, key[:16]) {
			t.Errorf("wrap with %q: it changed the key it was given, or left it as it was", name)
		}
		for range 2 {
			got, err := d.UnwrapKey(t.Context(), name, a, wrapped)
			if err != nil || !bytes.Equal(got, key) {
				t.Errorf("unwrap with %q and %v: another key, %v", name, a, err)
			}
		}
	}
}

// cryptoOthers unwraps with each key what another has wrapped, or was changed.
func cryptoOthers(t *testing.T, d crypto.Driver, setup CryptoSetup) {
	for name, a := range setup.Keys {
		key := fileKey()
		wrapped, err := d.WrapKey(t.Context(), name, a, key)
		if err != nil {
			t.Fatal(err)
		}
		for other, b := range setup.Keys {
			got, err := d.UnwrapKey(t.Context(), other, b, wrapped)
			if other != name && bytes.Equal(got, key) || err != nil && fault.KindOf(err) != fault.Invalid {
				t.Errorf("unwrap with %q what %q has wrapped: %v", other, name, err)
			}
		}
		wrapped[len(wrapped)/2] ^= 1
		for _, bad := range [][]byte{wrapped, wrapped[:len(wrapped)-1], {}, nil} {
			got, err := d.UnwrapKey(t.Context(), name, a, bad)
			if bytes.Equal(got, key) || err != nil && fault.KindOf(err) != fault.Invalid {
				t.Errorf("unwrap with %q what was changed: %v", name, err)
			}
		}
	}
}

func cryptoMissing(t *testing.T, d crypto.Driver, setup CryptoSetup) {
	for _, name := range append(setup.Missing, "", ".", "..", "../x", "a/../../x", "/", "x\x00y", strings.Repeat("x", 5000)) {
		if out, err := d.WrapKey(t.Context(), name, enc.A256KW, fileKey()); err == nil || fault.KindOf(err) != fault.NotFound || out != nil {
			t.Errorf("wrap with %.20q, which is not there: %v; want an error of kind not found", name, err)
		}
		if out, err := d.UnwrapKey(t.Context(), name, enc.A256KW, make([]byte, 40)); err == nil || fault.KindOf(err) != fault.NotFound || out != nil {
			t.Errorf("unwrap with %.20q, which is not there: %v; want an error of kind not found", name, err)
		}
	}
}

func cryptoUnfit(t *testing.T, d crypto.Driver, setup CryptoSetup) {
	for name, a := range setup.Unfit {
		_, wrapErr := d.WrapKey(t.Context(), name, a, fileKey())
		_, unwrapErr := d.UnwrapKey(t.Context(), name, a, make([]byte, 40))
		for _, err := range []error{wrapErr, unwrapErr} {
			if err == nil || fault.KindOf(err) != fault.Invalid {
				t.Errorf("use %q with %v: %v; want an error of kind invalid", name, a, err)
			}
		}
	}
}

func cryptoConcurrent(t *testing.T, d crypto.Driver, setup CryptoSetup) {
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 5 {
				cryptoKeys(t, d, setup)
			}
		})
	}
	users.Wait()
}

// cryptoStreams uses the component as the API does.
func cryptoStreams(t *testing.T, def component.Definition, setup CryptoSetup) {
	var list []config.Item
	for name, value := range setup.Options(t) {
		list = append(list, config.Item{Name: name, Value: value})
	}
	p, err := crypto.New(def, environment(t), config.Component{Name: "conform", Type: def.Type, Metadata: list})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer shut(t, p.Instance())
	data := make([]byte, 3*enc.SegmentSize+17)
	_, _ = rand.Read(data)
	for name, a := range setup.Keys {
		for _, size := range []int{0, 1, enc.SegmentSize, len(data)} {
			s, err := p.Encrypt(t.Context(), &crypto.Request{Key: name, Algorithm: a.String()}, bytes.NewReader(data[:size]))
			if err != nil {
				t.Fatalf("encrypt with %q: %v", name, err)
			}
			plain, err := p.Decrypt(t.Context(), "", s)
			if err != nil {
				t.Fatalf("decrypt with %q: %v", name, err)
			}
			if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data[:size]) {
				t.Errorf("%d bytes with %q: %d came back, %v", size, name, len(got), err)
			}
		}
	}
}
