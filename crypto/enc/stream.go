package enc

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/penstock-io/penstock/fault"
)

// readAhead is the buffer that tells whether a segment is the last one.
const readAhead = 4 << 10

// Stream is a document being encrypted or decrypted. An error of the stream it
// reads from is returned as it was, with a text in front. Use it from one
// goroutine.
type Stream struct {
	in    *bufio.Reader
	aead  cipher.AEAD
	open  bool // decrypts
	nonce [nonceSize]byte
	at    uint64 // the segment that comes next
	buf   []byte // one sealed segment
	ready []byte // to be read; in buf, or the header
	err   error  // once ready is empty
}

// Encrypt makes the document of a stream of data. The file key is made and
// wrapped before it returns; what wrap returns as an error is in its error. Of
// the manifest it takes Key, Algorithm and Cipher.
func Encrypt(in io.Reader, m Manifest, wrap WrapFunc) (*Stream, error) {
	random := make([]byte, FileKeySize+prefixSize)
	if _, err := rand.Read(random); err != nil {
		return nil, fault.Wrap(err, "make file key")
	}
	fileKey := random[:FileKeySize]
	m.prefix = random[FileKeySize:]
	var err error
	if m.WrappedKey, err = wrap(fileKey); err != nil {
		return nil, err
	}
	head, err := m.write(fileKey)
	if err != nil {
		return nil, err
	}
	s, err := newStream(bufio.NewReaderSize(in, readAhead), &m, fileKey)
	if err != nil {
		return nil, err
	}
	s.ready = head
	return s, nil
}

// Decrypt makes the data of a document. It reads the header and checks its
// signature before it returns. Kind Invalid when the data is no document, or its
// header is not genuine: whether because it was changed, or because unwrap could
// not unwrap the key (an error of kind Invalid or NotFound), nobody is told,
// lest a document be used to find out about keys. Other errors of unwrap are in
// the error.
func Decrypt(in io.Reader, unwrap UnwrapFunc) (*Stream, error) {
	r := bufio.NewReaderSize(in, readAhead)
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	fileKey, err := unwrap(&h.manifest)
	if err != nil && fault.KindOf(err) != fault.Invalid && fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	if err != nil || len(fileKey) != FileKeySize {
		fileKey = make([]byte, FileKeySize) // and it takes the time that a wrong key takes
	}
	if !h.genuine(fileKey) || err != nil {
		return nil, fault.New(fault.Invalid,
			"check header: its signature does not fit: the document was changed, or the key is not there, or not the one it was encrypted with")
	}
	s, err := newStream(r, &h.manifest, fileKey)
	if err != nil {
		return nil, err
	}
	s.open = true
	return s, nil
}

func newStream(in *bufio.Reader, m *Manifest, fileKey []byte) (*Stream, error) {
	key, err := hkdf.Key(sha256.New, fileKey, m.prefix, "payload", FileKeySize)
	if err != nil {
		return nil, fault.Wrap(err, "derive payload key")
	}
	s := &Stream{in: in, buf: make([]byte, SegmentSize+Overhead)}
	copy(s.nonce[:], m.prefix)
	if s.aead, err = m.Cipher.aead(key); err != nil {
		return nil, fault.Wrap(err, "make cipher")
	}
	return s, nil
}

func (c Cipher) aead(key []byte) (cipher.AEAD, error) {
	if c == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Read implements [io.Reader].
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.more(); err != nil {
		return 0, err
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// WriteTo implements [io.WriterTo]: one Write for the header and one for each
// segment.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for {
		if err := s.more(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return sum, err
		}
		n, err := w.Write(s.ready)
		sum += int64(n)
		s.ready = s.ready[n:]
		if err != nil {
			return sum, err
		}
	}
}

// more sees to it that something can be read, or returns why not: io.EOF behind
// the last segment.
func (s *Stream) more() error {
	for len(s.ready) == 0 {
		if s.err != nil {
			return s.err
		}
		s.ready, s.err = s.next()
	}
	return nil
}

// next handles one segment. With the last it returns io.EOF as well.
func (s *Stream) next() ([]byte, error) {
	size := SegmentSize
	if s.open {
		size += Overhead
	}
	n, err := fill(s.in, s.buf[:size])
	if err != nil && err != io.EOF {
		return nil, fault.Wrap(err, "read segment %d", s.at)
	}
	if n == 0 { // nothing follows a full segment that was not the last, so this is the first
		return nil, io.EOF
	}
	last := err != nil
	if !last {
		if _, err := s.in.Peek(1); err != nil && err != io.EOF {
			return nil, fault.Wrap(err, "read segment %d", s.at)
		} else if err != nil {
			last = true
		}
	}
	out, err := s.turn(s.buf[:n], last)
	if err != nil || !last {
		return out, err
	}
	return out, io.EOF
}

// turn seals or opens one segment in place.
func (s *Stream) turn(segment []byte, last bool) ([]byte, error) {
	if s.at > math.MaxUint32 {
		return nil, fault.New(fault.Invalid, "read segment %d: the data is longer than the format can hold", s.at)
	}
	binary.BigEndian.PutUint32(s.nonce[prefixSize:], uint32(s.at))
	if last {
		s.nonce[nonceSize-1] = 1
	}
	s.at++
	if !s.open {
		return s.aead.Seal(segment[:0], s.nonce[:], segment, nil), nil
	}
	out, err := s.aead.Open(segment[:0], s.nonce[:], segment, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "open segment %d: the document was changed or cut short", s.at-1)
	}
	return out, nil
}
