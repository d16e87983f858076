package message

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Upgrade returns what the connection of a request is to become, of what may pass:
// that is a WebSocket.
func Upgrade(r *http.Request) string {
	const websocket = "websocket"
	if r.ProtoMajor != 1 || r.Method != http.MethodGet || r.ContentLength != 0 ||
		!HasToken(r.Header["Connection"], "Upgrade") || !HasToken(r.Header["Upgrade"], websocket) {
		return ""
	}
	return websocket
}

// HasToken tells whether a header that is a list of tokens, such as Connection, has
// one, in any case.
func HasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// Tunnel takes the connection of a request over that became what [Request].Upgrade
// says, and copies both ways until one side ends it. It returns an error when the
// connection cannot be taken over; then nothing was written.
func Tunnel(w http.ResponseWriter, answer *Response, protocol string) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fault.Wrap(err, "take over the connection")
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{}) // it may last as long as it likes
	ForHTTP(answer.Header)
	answer.Header["Connection"], answer.Header["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	_, _ = io.WriteString(buffered, "HTTP/1.1 101 Switching Protocols\r\n")
	_ = answer.Header.Write(buffered)
	_, _ = io.WriteString(buffered, "\r\n")
	if buffered.Flush() != nil { // it remembers what went wrong before
		return nil
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(answer.Upgraded, buffered.Reader) // either side may end it, in any way
		_ = answer.Body.Close()
	})
	_, _ = io.Copy(conn, answer.Body)
	_ = conn.Close()
	back.Wait()
	return nil
}
