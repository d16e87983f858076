package http

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-io/penstock/invoke/message"
)

// upgrade returns what the connection of a request is to become, of what may pass:
// that is a WebSocket.
func upgrade(r *http.Request) string {
	const websocket = "websocket"
	if r.ProtoMajor != 1 || r.Method != http.MethodGet || r.ContentLength != 0 ||
		!hasToken(r.Header["Connection"], "Upgrade") || !hasToken(r.Header["Upgrade"], websocket) {
		return ""
	}
	return websocket
}

// tunnel takes the connection over and copies both ways until one side ends it.
func tunnel(w http.ResponseWriter, answer *message.Response, protocol string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		respondError(w, fmt.Errorf("take over the connection: %w", err))
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{}) // it may last as long as it likes
	message.ForHTTP(answer.Header)
	answer.Header["Connection"], answer.Header["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	_, _ = io.WriteString(buffered, "HTTP/1.1 101 Switching Protocols\r\n")
	_ = answer.Header.Write(buffered)
	_, _ = io.WriteString(buffered, "\r\n")
	if buffered.Flush() != nil { // it remembers what went wrong before
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(answer.Upgraded, buffered.Reader) // either side may end it, in any way
		_ = answer.Body.Close()
	})
	_, _ = io.Copy(conn, answer.Body)
	_ = conn.Close()
	back.Wait()
}
