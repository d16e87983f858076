package enc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/penstock-io/penstock/fault"
)

// mask is a key that wraps by adding itself.
func mask(key []byte) ([]byte, error) {
	out := bytes.Clone(key)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out, nil
}

func unmask(m *Manifest) ([]byte, error) { return mask(m.WrappedKey) }

// pattern is data of which no two segments are alike.
func pattern(size int) []byte {
	out := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(out[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	return out
}

func seal(tb testing.TB, data []byte, c Cipher) []byte {
	tb.Helper()
	s, err := Encrypt(bytes.NewReader(data), Manifest{Key: "k", Algorithm: A256KW, Cipher: c}, mask)
	if err != nil {
		tb.Fatal(err)
	}
	doc, err := io.ReadAll(s)
	if err != nil {
		tb.Fatal(err)
	}
	return doc
}

func unseal(doc []byte) ([]byte, error) {
	s, err := Decrypt(bytes.NewReader(doc), unmask)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

// Sizes around the edges of a segment.
var sizes = []int{0, 1, 15, 16, SegmentSize - 1, SegmentSize, SegmentSize + 1, 2 * SegmentSize, 2*SegmentSize + 17, 5*SegmentSize - 16}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, c := range []Cipher{AESGCM, ChaCha20Poly1305} {
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%v %d", c, size), func(t *testing.T) {
				t.Parallel()
				data := pattern(size)
				doc := seal(t, data, c)
				head := bytes.SplitAfterN(doc, []byte("\n"), 4)
				segments := (size + SegmentSize - 1) / SegmentSize
				if want := size + segments*Overhead; len(head) != 4 || string(head[0]) != Scheme+"\n" || len(head[3]) != want {
					t.Fatalf("a document of %d lines, with %d bytes behind the third; want %d", len(head)-1, len(head[3]), want)
				}
				for name, r := range map[string]io.Reader{
					"at once": bytes.NewReader(doc), "byte by byte": iotest.OneByteReader(bytes.NewReader(doc)),
					"end with data": iotest.DataErrReader(bytes.NewReader(doc)), "halves": iotest.HalfReader(bytes.NewReader(doc)),
				} {
					s, err := Decrypt(r, unmask)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					var got bytes.Buffer
					if n, err := s.WriteTo(&got); err != nil || n != int64(size) || !bytes.Equal(got.Bytes(), data) {
						t.Fatalf("%s: %d of %d bytes, %v", name, n, size, err)
					}
				}
			})
		}
	}
}

func TestStreamIsAReader(t *testing.T) {
	t.Parallel()
	data := pattern(2*SegmentSize + 5)
	doc := seal(t, data, AESGCM)
	s, err := Decrypt(bytes.NewReader(doc), unmask)
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(s, data); err != nil {
		t.Fatal(err)
	}
}

func TestEachDocumentHasItsOwnKey(t *testing.T) {
	t.Parallel()
	if a, b := seal(t, pattern(100), AESGCM), seal(t, pattern(100), AESGCM); bytes.Equal(a[len(a)-116:], b[len(b)-116:]) {
		t.Error("the same data was encrypted to the same bytes")
	}
}

// Whatever is done to a document, it is an error, and what was read until then
// is the beginning of the data.
func TestDamage(t *testing.T) {
	t.Parallel()
	data := pattern(2*SegmentSize + 100)
	doc := seal(t, data, AESGCM)
	lines := bytes.SplitAfterN(doc, []byte("\n"), 4)
	head := len(doc) - len(lines[3])
	const sealed = SegmentSize + Overhead
	rows := map[string][]byte{
		"cut to the first segment":        doc[:head+sealed],
		"cut within the first segment":    doc[:head+1000],
		"cut in the tag":                  doc[:head+sealed-3],
		"last byte is gone":               doc[:len(doc)-1],
		"last segment is only its tag":    doc[:head+2*sealed+Overhead],
		"something is behind it":          append(bytes.Clone(doc), 'x'),
		"a whole segment is behind it":    append(bytes.Clone(doc), doc[head:head+sealed]...),
		"first segment is gone":           append(bytes.Clone(doc[:head]), doc[head+sealed:]...),
		"middle segment is gone":          append(bytes.Clone(doc[:head+sealed]), doc[head+2*sealed:]...),
		"segments changed places":         bytes.Join([][]byte{doc[:head], doc[head+sealed : head+2*sealed], doc[head : head+sealed], doc[head+2*sealed:]}, nil),
		"a segment is twice there":        bytes.Join([][]byte{doc[:head+sealed], doc[head:]}, nil),
		"header of another document":      append(bytes.Clone(seal(t, data, AESGCM)[:head]), lines[3]...),
		"segments of another document":    append(bytes.Clone(doc[:head]), seal(t, data, AESGCM)[head:]...),
		"no last line":                    append(append(bytes.Clone(lines[0]), lines[1]...), '\n'),
		"no header":                       lines[3],
		"only the scheme":                 lines[0],
		"cut in the manifest":             doc[:head-60],
		"cut in the signature":            doc[:head-10],
		"no line end after the signature": doc[:head-1],
		"nothing":                         nil,
		"another scheme":                  append([]byte("dapr.io/enc/v2\n"), doc[len(lines[0]):]...),
		"a longer scheme":                 append([]byte("dapr.io/enc/v1x\n"), doc[len(lines[0]):]...),
		"carriage returns":                bytes.ReplaceAll(doc, []byte("\n"), []byte("\r\n")),
		"a space behind the manifest":     bytes.Replace(doc, []byte("}\n"), []byte("} \n"), 1),
		"an endless manifest":             append([]byte(Scheme+"\n"), bytes.Repeat([]byte(" "), MaxHeader)...),
		"an endless signature":            append(append(bytes.Clone(lines[0]), lines[1]...), bytes.Repeat([]byte("A"), MaxHeader)...),
		"a manifest of null":              []byte(Scheme + "\nnull\n" + string(lines[2])),
		"a manifest of a list":            []byte(Scheme + "\n[]\n" + string(lines[2])),
	}
	for name, bad := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := unseal(bad)
			if err == nil || fault.KindOf(err) != fault.Invalid || !bytes.HasPrefix(data, got) {
				t.Errorf("%d bytes, which are the data's: %v; error %v; want one of kind invalid", len(got), bytes.HasPrefix(data, got), err)
			}
		})
	}
	if got, err := unseal(doc[:head]); err != nil || len(got) != 0 {
		t.Errorf("a document cut off behind its header: %d bytes, %v; the format takes it for an empty one", len(got), err)
	}
}

func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	for _, c := range []Cipher{AESGCM, ChaCha20Poly1305} {
		doc := seal(t, pattern(40), c)
		for i := range doc {
			for bit := range 8 {
				doc[i] ^= 1 << bit
				if got, err := unseal(doc); err == nil || len(got) > 0 || fault.KindOf(err) != fault.Invalid {
					t.Fatalf("%v: bit %d of byte %d changed: %d bytes, %v", c, bit, i, len(got), err)
				}
				doc[i] ^= 1 << bit
			}
		}
	}
}

// In the end of each part of a long document a bit is changed.
func TestBitsOfALongDocument(t *testing.T) {
	t.Parallel()
	data := pattern(2*SegmentSize + 100)
	doc := seal(t, data, AESGCM)
	head := len(doc) - len(data) - 3*Overhead
	for _, at := range []int{head, head + SegmentSize, head + SegmentSize + Overhead, head + 2*(SegmentSize+Overhead), len(doc) - 1} {
		bad := bytes.Clone(doc)
		bad[at] ^= 0x80
		got, err := unseal(bad)
		if err == nil || fault.KindOf(err) != fault.Invalid || !bytes.HasPrefix(data, got) || len(got)%SegmentSize != 0 {
			t.Errorf("byte %d changed: %d bytes, %v", at, len(got), err)
		}
	}
}

// Nobody learns from the error whether there is such a key.
func TestUnwrapErrors(t *testing.T) {
	t.Parallel()
	doc := seal(t, pattern(10), AESGCM)
	texts := map[string]bool{}
	for _, unwrap := range []UnwrapFunc{
		func(*Manifest) ([]byte, error) { return nil, fault.New(fault.NotFound, "no key") },
		func(*Manifest) ([]byte, error) { return nil, fault.New(fault.Invalid, "wrong kind of key") },
		func(*Manifest) ([]byte, error) { return make([]byte, 31), nil },
		func(*Manifest) ([]byte, error) { return make([]byte, FileKeySize), nil },
		func(m *Manifest) ([]byte, error) { // right, and yet an error
			key, _ := unmask(m)
			return key, fault.New(fault.Invalid, "changed its mind")
		},
	} {
		_, err := Decrypt(bytes.NewReader(doc), unwrap)
		if err == nil || fault.KindOf(err) != fault.Invalid {
			t.Fatalf("got %v", err)
		}
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("the errors differ: %v", texts)
	}
	_, err := Decrypt(bytes.NewReader(doc), func(*Manifest) ([]byte, error) { return nil, fault.New(fault.Unavailable, "vault is down") })
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a vault that is down: %v", err)
	}
}

// A stream that breaks is no end of the data.
func TestBrokenInput(t *testing.T) {
	t.Parallel()
	broken := errors.New("line is dead")
	for _, size := range []int{0, 10, SegmentSize, SegmentSize + 5} {
		for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
			in := io.MultiReader(bytes.NewReader(pattern(size)), iotest.ErrReader(cause))
			s, err := Encrypt(in, Manifest{Algorithm: A256KW, Cipher: AESGCM}, mask)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err = io.ReadAll(s); !errors.Is(err, cause) {
					t.Errorf("%d bytes, then %v: encrypt ends with %v", size, cause, err)
				}
			}
			doc := seal(t, pattern(size), AESGCM)
			for _, at := range []int{3, 60, len(doc) - 1, len(doc)} {
				var got []byte
				s, err := Decrypt(io.MultiReader(bytes.NewReader(doc[:at]), iotest.ErrReader(cause)), unmask)
				if err == nil {
					got, err = io.ReadAll(s)
				}
				if !errors.Is(err, cause) || len(got)%SegmentSize != 0 {
					t.Errorf("%d of %d bytes, then %v: decrypt gives %d bytes, %v", at, len(doc), cause, len(got), err)
				}
			}
		}
	}
	s, err := Encrypt(bytes.NewReader(pattern(10)), Manifest{Algorithm: A256KW, Cipher: AESGCM}, mask)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteTo(deaf{}); err != io.ErrClosedPipe {
		t.Errorf("a writer that fails: %v", err)
	}
}

type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLongestDocument(t *testing.T) {
	t.Parallel()
	s, err := Encrypt(bytes.NewReader(pattern(SegmentSize+1)), Manifest{Algorithm: A256KW, Cipher: AESGCM}, mask)
	if err != nil {
		t.Fatal(err)
	}
	s.at = 1<<32 - 1
	if n, err := io.Copy(io.Discard, s); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "longer than the format") || n < SegmentSize {
		t.Errorf("behind the last number of a segment: %d bytes, %v", n, err)
	}
}

func TestLongHeader(t *testing.T) {
	t.Parallel()
	long := Manifest{Key: strings.Repeat("k", MaxHeader), Algorithm: A256KW, Cipher: AESGCM}
	if _, err := Encrypt(bytes.NewReader(nil), long, mask); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "65536") {
		t.Errorf("a name too long for the header: %v", err)
	}
	long.Key = strings.Repeat("k", MaxHeader-300)
	s, err := Encrypt(strings.NewReader("x"), long, mask)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Decrypt(s, func(m *Manifest) ([]byte, error) {
		if m.Key != long.Key || m.Algorithm != A256KW || m.Cipher != AESGCM {
			t.Errorf("the manifest came back as %d letters, %v, %v", len(m.Key), m.Algorithm, m.Cipher)
		}
		return unmask(m)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Algorithm{
		"A256KW": A256KW, "aes": A256KW, "AES": A256KW, "rsa": RSAOAEP256, "RSA-OAEP-256": RSAOAEP256, "rsa-oaep-256": RSAOAEP256,
		"A128CBC-NOPAD": A128CBC, "A192cbc-nopad": A192CBC, "A256CBC-NOPAD": A256CBC,
		"": 0, "A256CBC": 0, "algorithm 0": 0, "algorithm 6": 0, "RSA-OAEP": 0, "A128KW": 0,
	} {
		if got, err := ParseAlgorithm(name); got != want || (err == nil) != (want != 0) || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for name, want := range map[string]Cipher{
		"": AESGCM, "aes-gcm": AESGCM, "AES-GCM": AESGCM, "ChaCha20-Poly1305": ChaCha20Poly1305, "aes": 0, "cipher 1": 0,
	} {
		if got, err := ParseCipher(name); got != want || (err == nil) != (want != 0) || err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

// endless is data that is made as it is read.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	e.left -= n
	return int(n), nil
}

// watch notes how large the heap gets while bytes go by.
type watch struct {
	n, next int64
	most    uint64
}

func (w *watch) Write(p []byte) (int, error) {
	if w.n += int64(len(p)); w.n >= w.next {
		w.next += 64 << 20
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.most = max(w.most, m.HeapAlloc)
	}
	return len(p), nil
}

func TestConstantMemory(t *testing.T) { // not parallel: it looks at the heap
	const size = 1 << 30
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	sealed, err := Encrypt(&endless{size}, Manifest{Algorithm: A256KW, Cipher: AESGCM}, mask)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Decrypt(sealed, unmask)
	if err != nil {
		t.Fatal(err)
	}
	var w watch
	if _, err := plain.WriteTo(&w); err != nil || w.n != size {
		t.Fatalf("%d bytes of %d, %v", w.n, size, err)
	}
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	const limit = 1 << 20
	if grown := int64(w.most) - int64(before.HeapAlloc); grown > limit {
		t.Errorf("the heap grew by %d bytes, more than %d", grown, limit)
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > limit {
		t.Errorf("%d bytes were allocated for 1 GiB, more than %d", made, limit)
	}
}

func FuzzDecrypt(f *testing.F) {
	for _, size := range []int{0, 1, 100} {
		f.Add(seal(f, pattern(size), AESGCM))
	}
	f.Add([]byte(Scheme + "\n{\"kw\":1,\"wfk\":\"AA==\",\"cph\":1,\"np\":\"AAAAAAAAAA==\"}\nAAAA\n"))
	f.Add([]byte(Scheme + "\n\n\n"))
	// A header that is read says the same when it is written and read again.
	f.Fuzz(func(t *testing.T, doc []byte) {
		var seen *Manifest
		_, err := Decrypt(bytes.NewReader(doc), func(m *Manifest) ([]byte, error) {
			seen = m
			return nil, fault.New(fault.NotFound, "no key")
		})
		if err == nil || fault.KindOf(err) != fault.Invalid {
			t.Fatalf("a document was taken without its key: %v", err)
		}
		if seen == nil {
			return
		}
		head, err := seen.write(make([]byte, FileKeySize))
		if err != nil {
			return // the name grew by its escapes
		}
		_, err = Decrypt(bytes.NewReader(head), func(m *Manifest) ([]byte, error) {
			if m.Key != seen.Key || m.Algorithm != seen.Algorithm || m.Cipher != seen.Cipher || !bytes.Equal(m.WrappedKey, seen.WrappedKey) {
				t.Errorf("%+v became %+v", seen, m)
			}
			return make([]byte, FileKeySize), nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkEncrypt(b *testing.B) {
	for _, c := range []Cipher{AESGCM, ChaCha20Poly1305} {
		b.Run(c.String(), func(b *testing.B) {
			const size = 64 << 20
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				s, err := Encrypt(&endless{size}, Manifest{Algorithm: A256KW, Cipher: c}, mask)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.String()+" bare", func(b *testing.B) {
			const size = 64 << 20
			aead, err := c.aead(make([]byte, FileKeySize))
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, SegmentSize+Overhead)
			b.SetBytes(size)
			for b.Loop() {
				for range size / SegmentSize {
					aead.Seal(buf[:0], buf[:nonceSize], buf[:SegmentSize], nil)
				}
			}
		})
	}
}

func BenchmarkDecrypt(b *testing.B) {
	doc := seal(b, make([]byte, 64<<20), AESGCM)
	b.SetBytes(64 << 20)
	for b.Loop() {
		s, err := Decrypt(bytes.NewReader(doc), unmask)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSmall(b *testing.B) {
	data := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		s, err := Encrypt(bytes.NewReader(data), Manifest{Algorithm: A256KW, Cipher: AESGCM}, mask)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
