package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apigrpc "github.com/penstock-io/penstock/api/grpc"
)

// keySet has a key for each of two algorithms.
const keySet = `{"keys":[
	{"kty":"oct","kid":"kw","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
	{"kty":"oct","kid":"cbc","k":"AAECAwQFBgcICQoLDA0ODw"}
]}`

// sent is one message of a stream.
type sent struct {
	encrypt *rtv1.EncryptRequestOptions
	decrypt *rtv1.DecryptRequestOptions
	payload *commonv1.StreamPayload
}

func chunk(seq uint64, data string) *commonv1.StreamPayload {
	return &commonv1.StreamPayload{Seq: seq, Data: []byte(data)}
}

// collect reads a stream to its end.
func collect(next func() (*commonv1.StreamPayload, error)) ([]byte, error) {
	var out []byte
	for seq := uint64(0); ; seq++ {
		p, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return out, err
		case p.GetSeq() != seq:
			return out, fmt.Errorf("message number %d where %d was to come", p.GetSeq(), seq)
		}
		out = append(out, p.GetData()...)
	}
}

func encrypt(ctx context.Context, c rtv1.DaprClient, messages ...sent) ([]byte, error) {
	s, err := c.EncryptAlpha1(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if s.Send(&rtv1.EncryptRequest{Options: m.encrypt, Payload: m.payload}) != nil {
			break // Recv says why
		}
	}
	_ = s.CloseSend()
	return collect(func() (*commonv1.StreamPayload, error) {
		m, err := s.Recv()
		return m.GetPayload(), err
	})
}

func decrypt(ctx context.Context, c rtv1.DaprClient, messages ...sent) ([]byte, error) {
	s, err := c.DecryptAlpha1(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if s.Send(&rtv1.DecryptRequest{Options: m.decrypt, Payload: m.payload}) != nil {
			break
		}
	}
	_ = s.CloseSend()
	return collect(func() (*commonv1.StreamPayload, error) {
		m, err := s.Recv()
		return m.GetPayload(), err
	})
}

// reason is that of an error's details.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func options(key, algorithm string) *rtv1.EncryptRequestOptions {
	return &rtv1.EncryptRequestOptions{ComponentName: "keys", KeyName: key, KeyWrapAlgorithm: algorithm}
}

func opening(key string) *rtv1.DecryptRequestOptions {
	return &rtv1.DecryptRequestOptions{ComponentName: "keys", KeyName: key}
}

func TestEncryptAndDecrypt(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	full := options("kw", "aes")
	full.DataEncryptionCipher, full.DecryptionKeyName = "chacha20-poly1305", "other/1"
	unnamed := options("cbc", "A128CBC-NOPAD")
	unnamed.OmitDecryptionKeyName = true
	rows := map[string]struct {
		messages []sent
		key      string
		manifest string
		data     string
	}{
		"data in the first message": {[]sent{{encrypt: options("kw", "A256KW"), payload: chunk(0, "attack ")}, {payload: chunk(1, "at dawn")}}, "", `{"k":"kw","kw":1,`, "attack at dawn"},
		"data after it":             {[]sent{{encrypt: options("kw", "AES")}, {payload: chunk(0, "attack")}}, "", `"cph":1,`, "attack"},
		"messages without data":     {[]sent{{encrypt: options("kw", "AES")}, {}, {payload: chunk(0, "")}, {payload: chunk(1, "x")}, {}}, "", `{"k":"kw",`, "x"},
		"no data":                   {[]sent{{encrypt: options("kw", "AES")}}, "", `{"k":"kw",`, ""},
		"cipher and another name":   {[]sent{{encrypt: full, payload: chunk(0, "x")}}, "kw", `"cph":2,`, "x"},
		"no name":                   {[]sent{{encrypt: unnamed, payload: chunk(0, "x")}}, "cbc", `{"kw":2,`, "x"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := encrypt(t.Context(), c, row.messages...)
			if err != nil || !bytes.Contains(doc, []byte(row.manifest)) {
				t.Fatalf("encrypt: %q, %v", doc, err)
			}
			got, err := decrypt(t.Context(), c, sent{decrypt: opening(row.key), payload: &commonv1.StreamPayload{Data: doc}})
			if err != nil || string(got) != row.data {
				t.Errorf("decrypt: %q, %v", got, err)
			}
		})
	}
}

func TestCryptoErrors(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	doc, err := encrypt(t.Context(), c, sent{encrypt: options("kw", "AES"), payload: chunk(0, "data")})
	must(t, err)
	bad := bytes.Clone(doc)
	bad[len(bad)-1] ^= 1
	elsewhere := options("kw", "AES")
	elsewhere.ComponentName = "other"
	whole := func(doc []byte) *commonv1.StreamPayload { return &commonv1.StreamPayload{Data: doc} }
	rows := map[string]struct {
		messages []sent
		code     codes.Code
		reason   string
	}{
		"no options":             {[]sent{{payload: chunk(0, "x")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"no such component":      {[]sent{{encrypt: elsewhere}}, codes.InvalidArgument, "ERR_CRYPTO_PROVIDER_NOT_FOUND"},
		"no key":                 {[]sent{{encrypt: options("", "AES")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"no algorithm":           {[]sent{{encrypt: options("kw", "")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"a strange algorithm":    {[]sent{{encrypt: options("kw", "ROT13")}}, codes.Internal, "ERR_CRYPTO"},
		"no such key":            {[]sent{{encrypt: options("none", "AES")}}, codes.Internal, "ERR_CRYPTO"},
		"options twice":          {[]sent{{encrypt: options("kw", "AES")}, {encrypt: options("kw", "AES")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"a number left out":      {[]sent{{encrypt: options("kw", "AES"), payload: chunk(0, "x")}, {payload: chunk(2, "x")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"a number twice":         {[]sent{{encrypt: options("kw", "AES"), payload: chunk(0, "x")}, {payload: chunk(0, "x")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"decrypt, no options":    {[]sent{{decrypt: nil, payload: nil}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
		"decrypt, no document":   {[]sent{{decrypt: opening(""), payload: chunk(0, "hello")}}, codes.Internal, "ERR_CRYPTO"},
		"decrypt, nothing":       {[]sent{{decrypt: opening("")}}, codes.Internal, "ERR_CRYPTO"},
		"decrypt, wrong key":     {[]sent{{decrypt: opening("cbc"), payload: whole(doc)}}, codes.Internal, "ERR_CRYPTO"},
		"decrypt, changed":       {[]sent{{decrypt: opening(""), payload: whole(bad)}}, codes.Internal, "ERR_CRYPTO"},
		"decrypt, cut":           {[]sent{{decrypt: opening(""), payload: whole(doc[:len(doc)-1])}}, codes.Internal, "ERR_CRYPTO"},
		"decrypt, options twice": {[]sent{{decrypt: opening("kw")}, {decrypt: opening("kw")}}, codes.InvalidArgument, "ERR_BAD_REQUEST"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do := encrypt
			if bytes.HasPrefix([]byte(name), []byte("decrypt")) {
				do = decrypt
			}
			_, err := do(t.Context(), c, row.messages...)
			if status.Code(err) != row.code || reason(err) != row.reason {
				t.Errorf("%v with reason %q; want %v with %q", err, reason(err), row.code, row.reason)
			}
		})
	}
	nothing := serve(t, &instance{empty: true}, apigrpc.Options{}).dial(t)
	if _, err := decrypt(t.Context(), nothing, sent{decrypt: opening("")}); reason(err) != "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED" || status.Code(err) != codes.Internal {
		t.Errorf("without any component: %v", err)
	}
	if _, err := c.SubtleEncryptAlpha1(t.Context(), &rtv1.SubtleEncryptRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a low-level verb: %v", err)
	}
}

// A call that says nothing does not last for ever.
func TestCryptoStreamThatSaysNothing(t *testing.T) {
	t.Parallel()
	c := serve(t, open(t), apigrpc.Options{Arrival: 50 * time.Millisecond}).dial(t)
	s, err := c.EncryptAlpha1(t.Context())
	must(t, err)
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestLongStream(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	const chunks, size = 300, 100 << 10
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sealed, err := c.EncryptAlpha1(ctx)
	must(t, err)
	plain, err := c.DecryptAlpha1(ctx)
	must(t, err)
	failed := make(chan error, 2)
	go func() {
		data := bytes.Repeat([]byte("n"), size)
		err := sealed.Send(&rtv1.EncryptRequest{Options: options("kw", "AES")})
		for seq := uint64(0); seq < chunks && err == nil; seq++ {
			err = sealed.Send(&rtv1.EncryptRequest{Payload: &commonv1.StreamPayload{Data: data, Seq: seq}})
		}
		failed <- errors.Join(err, sealed.CloseSend())
	}()
	go func() {
		err := plain.Send(&rtv1.DecryptRequest{Options: opening("")})
		for err == nil {
			var m *rtv1.EncryptResponse
			if m, err = sealed.Recv(); err == nil {
				err = plain.Send(&rtv1.DecryptRequest{Payload: m.GetPayload()})
			}
		}
		if errors.Is(err, io.EOF) {
			err = plain.CloseSend()
		}
		failed <- err
	}()
	n := 0
	for {
		m, err := plain.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		n += len(m.GetPayload().GetData())
	}
	if err := errors.Join(<-failed, <-failed); err != nil || n != chunks*size {
		t.Errorf("%d bytes of %d, %v", n, chunks*size, err)
	}
}
