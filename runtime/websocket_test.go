package runtime_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	namesfile "github.com/penstock-io/penstock/invoke/names/file"
)

// chat answers WebSockets, in capitals.
func chat(t *testing.T) *app {
	a := newApp(t, "[]")
	a.answer("/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 << 20)
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil || string(data) == "bye" {
				conn.Close(websocket.StatusNormalClosure, "bye")
				return
			}
			if conn.Write(r.Context(), kind, []byte(strings.ToUpper(string(data)))) != nil {
				return
			}
		}
	})
	a.answer("/plain", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	return a
}

// A WebSocket passes to the app, to web servers and through another sidecar that is a
// Penstock.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	a := chat(t)
	server := "http://127.0.0.1:" + strconv.Itoa(a.port)
	other, o := prepare(t, chat(t), "")
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.AppID, o.Internal, o.App.Port = "chat", []net.Listener{inner}, chat(t).port
	other.run(t, o)
	in, o := prepare(t, a, `
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: web}
spec: {baseUrl: "`+server+`"}
`)
	known := filepath.Join(in.dir, "apps.yaml")
	in.write(t, "apps.yaml", "chat: "+inner.Addr().String()+"\n")
	in.write(t, "names.yaml", resolving("file", "path", known))
	o.Resources, o.Configs = []string{filepath.Join(in.dir, "resources.yaml")}, []string{filepath.Join(in.dir, "names.yaml")}
	o.Components = append(components(), namesfile.Component)
	in.run(t, o)
	for target, path := range map[string]string{"shop": "ws", "web": "ws?a=b", server: "ws", "chat": "ws"} {
		echoes(t, in.url+"/invoke/"+url.PathEscape(target)+"/method/"+path)
	}
	for path, want := range map[string]int{"shop/method/plain": 403, "chat/method/plain": 403, "chat/method/other": 200} {
		conn, resp, err := websocket.Dial(t.Context(), in.url+"/invoke/"+path, nil)
		if err == nil {
			conn.CloseNow()
			t.Fatalf("%s: it is a WebSocket", path)
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
	// One that is open does not hold the end up.
	for _, of := range []*instance{other, in} {
		target := map[*instance]string{other: "chat", in: "shop"}[of]
		conn, resp, err := websocket.Dial(t.Context(), in.url+"/invoke/"+target+"/method/ws", nil)
		if err != nil {
			t.Fatalf("%v, %v", resp, err)
		}
		defer conn.CloseNow()
		if err := of.end(); err != nil {
			t.Errorf("stopped: %v", err)
		}
	}
}

// echoes holds that messages go both ways, the first before there is another, and
// that the end arrives.
func echoes(t *testing.T, at string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, at, &websocket.DialOptions{Subprotocols: []string{"chat"}})
	if err != nil {
		t.Errorf("%s: %v, %v", at, resp, err)
		return
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != "chat" {
		t.Errorf("%s: subprotocol %q", at, conn.Subprotocol())
	}
	conn.SetReadLimit(1 << 20)
	for _, text := range []string{"one", "two", strings.Repeat("x", 500_000)} {
		if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Errorf("%s: %v", at, err)
			return
		}
		if _, data, err := conn.Read(ctx); err != nil || string(data) != strings.ToUpper(text) {
			t.Errorf("%s: got %.20q, %v", at, data, err)
			return
		}
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte("bye")); err != nil {
		t.Errorf("%s: %v", at, err)
	}
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("%s: ended with %v", at, err)
	}
}
