package enc

import (
	"bufio"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"

	"github.com/penstock-io/penstock/fault"
)

// document is the manifest as it is written: the second line.
type document struct {
	Key        string    `json:"k,omitempty"`
	Algorithm  Algorithm `json:"kw"`
	WrappedKey []byte    `json:"wfk"`
	Cipher     Cipher    `json:"cph"`
	Prefix     []byte    `json:"np"`
}

// header is what was read of a header: the manifest, the two lines that are
// signed, and the signature.
type header struct {
	manifest Manifest
	signed   []byte
	mac      []byte
}

// readHeader reads the three lines and no more. What it returns is well-formed
// and not authenticated.
func readHeader(r *bufio.Reader) (*header, error) {
	h := &header{}
	scheme := make([]byte, len(Scheme)+1)
	if n, err := fill(r, scheme); err != nil && err != io.EOF {
		return nil, fault.Wrap(err, "read header")
	} else if string(scheme[:n]) != Scheme+"\n" {
		return nil, fault.New(fault.Invalid, "read header: the data does not begin with %s; it was not encrypted by this API", Scheme)
	}
	line, err := readLine(r, MaxHeader-len(scheme))
	if err != nil {
		return nil, err
	}
	h.signed = append(scheme, line...)
	if h.manifest, err = parseManifest(line); err != nil {
		return nil, err
	}
	if line, err = readLine(r, MaxHeader-len(h.signed)); err != nil {
		return nil, err
	}
	h.mac, err = base64.StdEncoding.Strict().DecodeString(string(line[:len(line)-1]))
	if err != nil || len(h.mac) != sha256.Size {
		return nil, fault.New(fault.Invalid, "read header: the third line is no signature")
	}
	return h, nil
}

// readLine reads to the end of a line, at most limit bytes with it.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fault.New(fault.Invalid, "read header: it is longer than %d bytes", MaxHeader)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF:
			return nil, fault.New(fault.Invalid, "read header: the data ends within it")
		default:
			return nil, fault.Wrap(err, "read header")
		}
	}
}

// fill reads until buf is full. Its error is the reader's own, so io.EOF is the
// end of the data and nothing else is: io.ReadFull would hide that a request was
// cut off, which net/http tells by io.ErrUnexpectedEOF.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	if n == len(buf) {
		err = nil
	}
	return n, err
}

// parseManifest reads the second line and checks what can be without a key.
func parseManifest(line []byte) (Manifest, error) {
	var d document
	if err := json.Unmarshal(line, &d); err != nil {
		return Manifest{}, fault.New(fault.Invalid, "read header: the second line is no manifest")
	}
	switch {
	case d.Algorithm <= 0 || d.Algorithm >= algorithms:
		return Manifest{}, fault.New(fault.Invalid, "read header: key wrap %v is not known", d.Algorithm)
	case d.Cipher != AESGCM && d.Cipher != ChaCha20Poly1305:
		return Manifest{}, fault.New(fault.Invalid, "read header: %v is not known", d.Cipher)
	case len(d.WrappedKey) == 0 || len(d.Prefix) != prefixSize:
		return Manifest{}, fault.New(fault.Invalid, "read header: the manifest is not complete")
	}
	return Manifest{Key: d.Key, Algorithm: d.Algorithm, WrappedKey: d.WrappedKey, Cipher: d.Cipher, prefix: d.Prefix}, nil
}

// write returns the header, signed with the file key.
func (m *Manifest) write(fileKey []byte) ([]byte, error) {
	line, err := json.Marshal(document{m.Key, m.Algorithm, m.WrappedKey, m.Cipher, m.prefix})
	if err != nil {
		return nil, fault.Wrap(err, "write header")
	}
	out := append(append([]byte(Scheme+"\n"), line...), '\n')
	mac, err := sign(fileKey, out)
	if err != nil {
		return nil, err
	}
	out = append(base64.StdEncoding.AppendEncode(out, mac), '\n')
	if len(out) > MaxHeader {
		return nil, fault.New(fault.Invalid, "write header: it would be longer than %d bytes; the name of the key is too long", MaxHeader)
	}
	return out, nil
}

// sign makes the signature of the first two lines.
func sign(fileKey, lines []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, fileKey, nil, "header", sha256.Size)
	if err != nil {
		return nil, fault.Wrap(err, "sign header")
	}
	h := hmac.New(sha256.New, key)
	h.Write(lines)
	return h.Sum(nil), nil
}

// genuine tells whether the header was signed with the file key.
func (h *header) genuine(fileKey []byte) bool {
	mac, err := sign(fileKey, h.signed)
	return err == nil && hmac.Equal(mac, h.mac)
}
