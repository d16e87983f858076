// Package uppercase is the middleware "middleware.http.uppercase": it turns the
// letters of bodies into capitals. It is there to try a pipeline with.
//
// It is opened through [Component].
//
// Bodies stream through it, with 4 KiB held at most; bytes that are no UTF-8
// pass as they are.
package uppercase

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"unicode"
	"unicode/utf8"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/middleware"
)

// Component is listed in package all.
var Component = middleware.Define("uppercase", component.About{
	Summary: "Turns the letters of bodies into capitals; a sample to try a pipeline with",
	Limits:  "None: bodies stream through it.",
	Scale:   "Every process does it by itself.",
	Dapr:    "Bytes that are no UTF-8 pass as they are, where Dapr makes replacement characters of them.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: capitals
spec:
  type: middleware.http.uppercase
  version: v1
`,
}, open)

type options struct {
	Direction string `meta:"direction" doc:"Which bodies are changed." default:"request" enum:"request|response|both"`
}

type driver struct{ request, response bool }

func open(_ context.Context, _ component.Env, o options) (middleware.Driver, error) {
	return driver{request: o.Direction != "response", response: o.Direction != "request"}, nil
}

// Wrap implements middleware.Driver.
func (d driver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.request && r.Body != nil && r.Body != http.NoBody {
			r = capital(r)
		}
		if !d.response {
			next.ServeHTTP(w, r)
			return
		}
		out := &writer{ResponseWriter: w}
		next.ServeHTTP(out, r)
		out.end()
	})
}

// Close implements middleware.Driver.
func (driver) Close(context.Context) error { return nil }

// capital returns the request with another body. A capital may have another
// number of bytes than the letter, so the length is not known any more.
func capital(r *http.Request) *http.Request {
	out := r.WithContext(r.Context())
	out.Header = r.Header.Clone()
	out.Header.Del("Content-Length")
	out.ContentLength, out.GetBody = -1, nil
	out.Body = struct {
		io.Reader
		io.Closer
	}{&reader{in: bufio.NewReader(r.Body)}, r.Body}
	return out
}

// reader reads capitals.
type reader struct {
	in   *bufio.Reader
	left []byte // of a rune that did not fit
	room [utf8.UTFMax]byte
}

// Read implements [io.Reader].
func (r *reader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.left) == 0 {
			if n > 0 && r.in.Buffered() < utf8.UTFMax {
				return n, nil // the next rune may have to be waited for
			}
			c, size, err := r.in.ReadRune()
			if err != nil {
				return n, err
			}
			if c == utf8.RuneError && size == 1 {
				if err := r.in.UnreadRune(); err != nil {
					return n, err
				}
				b, err := r.in.ReadByte()
				if err != nil {
					return n, err
				}
				r.left = append(r.room[:0], b)
			} else {
				r.left = utf8.AppendRune(r.room[:0], unicode.ToUpper(c))
			}
		}
		k := copy(p[n:], r.left)
		r.left, n = r.left[k:], n+k
	}
	return n, nil
}

// writer writes capitals.
type writer struct {
	http.ResponseWriter
	begun []byte // of a rune whose end has not come yet
	wrote bool
}

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.wrote = true
		w.Header().Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *writer) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	in := append(w.begun, p...)
	out := make([]byte, 0, len(in)+utf8.UTFMax)
	for len(in) > 0 && utf8.FullRune(in) {
		c, size := utf8.DecodeRune(in)
		if c == utf8.RuneError && size == 1 {
			out = append(out, in[0])
		} else {
			out = utf8.AppendRune(out, unicode.ToUpper(c))
		}
		in = in[size:]
	}
	w.begun = append([]byte(nil), in...)
	if _, err := w.ResponseWriter.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end writes what is left.
func (w *writer) end() {
	if len(w.begun) > 0 {
		_, _ = w.ResponseWriter.Write(w.begun) // nobody is there to hear of it
	}
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
