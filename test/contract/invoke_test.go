package contract

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// pair starts two sidecars, of a caller without an app and of an app whose
// handler is h, that find each other in a database.
func pair(t *testing.T, h http.HandlerFunc, flags ...string) (caller, callee *sidecar) {
	t.Helper()
	web := httptest.NewUnstartedServer(h)
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Start()
	t.Cleanup(web.Close)
	names := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n    component: sqlite\n" +
		"    configuration: {connectionString: " + t.TempDir() + "/names.db}\n"
	callee = start(t, setup{
		id: "callee", app: web.Listener.Addr().(*net.TCPAddr).Port, config: names, env: []string{"APP_API_TOKEN=app-token"}, flags: flags,
	})
	caller = start(t, setup{id: "caller", config: names, flags: flags})
	eventually(t, "the caller finds the callee", func() bool {
		return !strings.Contains(get(t, caller.api+"/invoke/callee/method/dapr/config").body, "ERR_DIRECT_INVOKE")
	})
	return caller, callee
}

func TestInvokeThroughTwoSidecars(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 10)
	caller, callee := pair(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/dapr/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- r
		w.Header().Set("X-Reply", "1")
		w.Header().Set("Dapr-Api-Token", "app-token")
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s", r.Method, body)
		w.Header().Set("X-Sum", "7")
	})
	for _, api := range []string{caller.api, callee.api} { // the second calls its own app
		base := strings.TrimSuffix(api, "/v1.0")
		for _, way := range []struct{ name, url, header string }{
			{"path", api + "/invoke/callee/method/a%2Fb/%20c/?q=1;&&", ""},
			{"header", base + "/a%2Fb/%20c/?q=1;&&", "Dapr-App-Id"},
			{"basic", base + "/a%2Fb/%20c/?q=1;&&", "Authorization"},
		} {
			r, err := http.NewRequestWithContext(t.Context(), "PURGE", way.url, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			switch way.header {
			case "Dapr-App-Id":
				r.Header.Set(way.header, "callee")
			case "Authorization":
				r.SetBasicAuth("dapr-app-id", "callee")
			}
			r.Header.Set("X-Mine", "2")
			r.Header.Set("Dapr-Api-Token", "callers")
			r.Header.Set("Dapr-Caller-App-Id", "admin")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusTeapot || string(body) != "PURGE body" || resp.Header.Get("X-Reply") != "1" ||
				resp.Trailer.Get("X-Sum") != "7" || resp.Header.Get("Dapr-Api-Token") != "" {
				t.Fatalf("%s: %d %q %v %v %v", way.name, resp.StatusCode, body, resp.Header, resp.Trailer, err)
			}
			checkArrived(t, way.name, <-seen, api == callee.api)
		}
	}
}

// checkArrived looks at what the app got, from its own sidecar's app or another's.
func checkArrived(t *testing.T, way string, got *http.Request, own bool) {
	t.Helper()
	from := "caller"
	if own {
		from = "callee"
	}
	if got.RequestURI != "/a%2Fb/%20c/?q=1;&&" || got.Header.Get("X-Mine") != "2" || got.Header.Get("Dapr-Api-Token") != "app-token" ||
		len(got.Header.Values("Dapr-Caller-App-Id")) != 1 || got.Header.Get("Dapr-Caller-App-Id") != from ||
		got.Header.Get("Dapr-Callee-App-Id") != "callee" || got.Header.Get("Dapr-App-Id") != "" || got.Header.Get("Authorization") != "" {
		t.Errorf("%s: %s %v", way, got.RequestURI, got.Header)
	}
}

func TestInvokeAnswersAndErrors(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "100")
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	base := strings.TrimSuffix(caller.api, "/v1.0")
	for _, row := range []struct {
		path   string
		status int
		code   string
	}{
		{"/v1.0/invoke/nobody/method/x", 500, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/caller/method/x", 500, "ERR_DIRECT_INVOKE"}, // has no app
		{"/v1.0/invoke//method/x", 404, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee", 404, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/a.b.c/method/x", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/admin%2F..%2Fpublic", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/x/../y", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/neworde%2572", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/a%23b", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/a%3Fb", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/callee/method/a%00", 400, "ERR_DIRECT_INVOKE"},
		{"/v1.0/invoke/http:%2F%2F169.254.169.254/method/latest", 403, "ERR_DIRECT_INVOKE"},
	} {
		checkProblem(t, get(t, base+row.path), row.status, row.code, "")
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, row := range []struct {
		verb, method string
		status       int
		length       int64
	}{{"HEAD", "head", 200, 100}, {"GET", "moved", 302, -2}, {"GET", "none", 204, 0}, {"GET", "missing", 404, -2}} {
		r, err := http.NewRequestWithContext(t.Context(), row.verb, caller.api+"/invoke/callee/method/"+row.method, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != row.status || row.length > -2 && resp.ContentLength != row.length {
			t.Errorf("%s: %d with %d bytes", row.method, resp.StatusCode, resp.ContentLength)
		}
	}
}

// TestInvokeAsksForABody: a client that waits to be asked for its body is. An app
// that answers before it reads has no claim to it, as without a sidecar.
func TestInvokeAsksForABody(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	asked := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { asked = true }})
	r, err := http.NewRequestWithContext(ctx, "POST", caller.api+"/invoke/callee/method/echo", io.MultiReader(strings.NewReader("a body")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", "100-continue")
	patient := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer patient.CloseIdleConnections()
	resp, err := patient.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "a body" || !asked {
		t.Errorf("%q, %v, asked %t", body, err, asked)
	}
}

func TestInvokeStreamsBothWays(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/dapr/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.Header().Set("Content-Type", "text/event-stream")
		_ = rc.Flush()
		in := bufio.NewScanner(r.Body)
		for in.Scan() {
			fmt.Fprintf(w, "data: %s\n", in.Text())
			_ = rc.Flush()
		}
	})
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", caller.api+"/invoke/callee/method/events", pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewScanner(resp.Body)
	for i := range 20 {
		fmt.Fprintf(pw, "%d\n", i)
		if !out.Scan() || out.Text() != fmt.Sprintf("data: %d", i) {
			t.Fatalf("%q, %v after %d", out.Text(), out.Err(), i)
		}
	}
	pw.Close()
	if out.Scan() || out.Err() != nil {
		t.Errorf("%q, %v is left", out.Text(), out.Err())
	}
}

func TestInvokeService(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("X-Reply", r.Header.Get("X-Mine"))
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusConflict)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-mine", "2")
	c := rtv1.NewDaprClient(caller.dial(t))
	call := func(id, method string, md *metadata.MD) (*commonv1.InvokeResponse, error) {
		return c.InvokeService(ctx, &rtv1.InvokeServiceRequest{Id: id, Message: &commonv1.InvokeRequest{
			Method: method, Data: &anypb.Any{Value: []byte("body")}, ContentType: "text/plain",
			HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_PUT, Querystring: "a=b"},
		}}, grpc.Header(md))
	}
	var md metadata.MD
	out, err := call("callee", "works", &md)
	if err != nil || string(out.GetData().GetValue()) != "PUT /works?a=b body" || out.GetContentType() != "text/x" ||
		md.Get("dapr-http-status")[0] != "200" || md.Get("x-reply")[0] != "2" {
		t.Errorf("%v %v %v", out, md, err)
	}
	if _, err := call("callee", "fails", &md); status.Code(err) != codes.AlreadyExists || md.Get("dapr-http-status")[0] != "409" || len(status.Convert(err).Details()) != 1 {
		t.Errorf("%v %v", md, err)
	}
	if _, err := call("nobody", "x", &md); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "failed to invoke, id: nobody") {
		t.Errorf("%v", err)
	}
	if _, err := call("callee", "a/../b", &md); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

func TestInvokeHTTPEndpoint(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Reply", r.Header.Get("X-Mine"))
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), body)
		for name := range r.Header {
			if strings.HasPrefix(name, "Dapr-Call") || strings.HasPrefix(name, "X-Forwarded-") {
				t.Errorf("%s is told to the world", name)
			}
		}
	}))
	t.Cleanup(web.Close)
	sc := start(t, setup{env: []string{"KEY=Bearer hunter2"}, resources: `
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: web}
spec:
  baseUrl: ` + web.URL + `/base
  headers:
  - {name: Authorization, secretKeyRef: {name: KEY, key: KEY}}
auth: {secretStore: env}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: env}
spec: {type: secretstores.local.env, version: v1}
`})
	for _, row := range []request{
		{method: "PUT", url: sc.api + "/invoke/web/method/a%2Fb?q=1", body: "body"},
		{method: "PUT", url: strings.TrimSuffix(sc.api, "/v1.0") + "/a%2Fb?q=1", body: "body", header: map[string]string{"dapr-app-id": "web"}},
	} {
		if r := send(t, row); r.status != http.StatusAccepted || r.body != "PUT /base/a%2Fb?q=1 Bearer hunter2 body" {
			t.Errorf("%s: %d %s", row.url, r.status, r.body)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var md metadata.MD
	c := rtv1.NewDaprClient(sc.dial(t))
	out, err := c.InvokeService(metadata.AppendToOutgoingContext(ctx, "x-mine", "2"), &rtv1.InvokeServiceRequest{Id: "web", Message: &commonv1.InvokeRequest{
		Method: "c", Data: &anypb.Any{Value: []byte("body")}, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST},
	}}, grpc.Header(&md))
	if err != nil || string(out.GetData().GetValue()) != "POST /base/c Bearer hunter2 body" || md.Get("dapr-http-status")[0] != "202" || md.Get("x-reply")[0] != "2" {
		t.Errorf("%v %v %v", out, md, err)
	}
	if body := get(t, sc.api+"/metadata").body; !strings.Contains(body, `"httpEndpoints":[{"name":"web"}]`) || strings.Contains(body, "hunter2") {
		t.Errorf("metadata: %s", body)
	}
}
