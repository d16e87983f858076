package http

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/crypto"
)

// The bounds of a stream, in place of those of a body: it may be of any length,
// and take any time as long as it goes on.
const (
	// streamIdle is how long a stream may stand still, either way.
	streamIdle = 60 * time.Second
	// holdBack is how much of an answer is held back, in bytes, before the
	// first of it is sent: what goes wrong until then is told by a status code,
	// and a client need not read before it has sent all of a request that short.
	holdBack = 4 << 20
)

func (h *handler) onEncrypt(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "name")
	if err != nil {
		respondError(w, err)
		return
	}
	s, err := h.api.Encrypt(r.Context(), path[0], &crypto.Request{
		Key:           r.Header.Get("dapr-key-name"),
		Algorithm:     r.Header.Get("dapr-key-wrap-algorithm"),
		Cipher:        r.Header.Get("dapr-data-encryption-cipher"),
		OmitKey:       truthy(r.Header.Get("dapr-omit-decryption-key-name")),
		DecryptionKey: r.Header.Get("dapr-decryption-key-name"),
	}, newUpload(w, r))
	respondStream(w, s, err)
}

func (h *handler) onDecrypt(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "name")
	if err != nil {
		respondError(w, err)
		return
	}
	s, err := h.api.Decrypt(r.Context(), path[0], r.Header.Get("dapr-key-name"), newUpload(w, r))
	respondStream(w, s, err)
}

// truthy reads a flag as Dapr does.
func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "1", "t", "true", "y", "yes", "on":
		return true
	}
	return false
}

// upload is the body of a request that is a stream.
type upload struct {
	body io.Reader
	ctl  *http.ResponseController
}

func newUpload(w http.ResponseWriter, r *http.Request) *upload {
	return &upload{r.Body, http.NewResponseController(w)}
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	// It fails where there are no deadlines, as in a test's recorder.
	_ = u.ctl.SetReadDeadline(time.Now().Add(streamIdle))
	n, err := u.body.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, api.Errorf(api.BodyRead, "read request body: nothing arrived for %v", streamIdle)
	}
	return n, api.Errorf(api.BodyRead, "read request body: %w", err)
}

// respondStream answers with a stream. An error behind the first byte that was
// sent breaks the answer off, so that no client takes it for whole.
func respondStream(w http.ResponseWriter, s *api.CryptoStream, err error) {
	if err != nil {
		respondError(w, err)
		return
	}
	d := &download{w: w, ctl: http.NewResponseController(w)}
	_, err = s.WriteTo(d)
	switch {
	case err == nil && d.sent:
		_ = d.ctl.SetWriteDeadline(time.Time{})
	case err == nil:
		respond(w, http.StatusOK, streamType, d.held)
	case d.sent:
		panic(http.ErrAbortHandler)
	default:
		respondError(w, err)
	}
}

const streamType = "application/octet-stream"

// download is an answer that is a stream.
type download struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	held []byte
	sent bool // the head, and what was held back
}

// Write implements [io.Writer].
func (d *download) Write(p []byte) (int, error) {
	if !d.sent && len(d.held)+len(p) <= holdBack {
		d.held = append(d.held, p...)
		return len(p), nil
	}
	if !d.sent {
		if err := d.begin(); err != nil {
			return 0, err
		}
	}
	_ = d.ctl.SetWriteDeadline(time.Now().Add(streamIdle))
	return d.w.Write(p)
}

// begin sends what was held back. From here on the request is read while the
// answer is written, which HTTP/1 does not do by itself.
func (d *download) begin() error {
	d.sent = true
	_ = d.ctl.EnableFullDuplex() // HTTP/2 needs none
	_ = d.ctl.SetWriteDeadline(time.Now().Add(streamIdle))
	d.w.Header().Set("Content-Type", streamType)
	d.w.Header().Set("X-Content-Type-Options", "nosniff")
	d.w.WriteHeader(http.StatusOK)
	held := d.held
	d.held = nil
	_, err := d.w.Write(held)
	return err
}
