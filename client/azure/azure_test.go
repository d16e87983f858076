package azure

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func made(t *testing.T, service Service, endpoint string) *Client {
	t.Helper()
	c, err := New(service, Account{Name: "acc", Key: component.NewSecret(base64.StdEncoding.EncodeToString([]byte("key"))), Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestTexts holds what is signed to the form that the service's documentation
// gives.
func TestTexts(t *testing.T) {
	t.Parallel()
	c := made(t, Blob, "")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://acc.blob.core.windows.net/c/a%7C%7Cb?timeout=30&comp=block&comp=a", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-ms-version", "2021-12-02")
	r.Header.Set("x-ms-date", "Mon, 02 Jan 2006 15:04:05 GMT")
	r.Header.Set("If-Match", `"0x1"`)
	r.Header.Set("Content-Type", "application/json")
	want := "PUT\n\n\n5\n\napplication/json\n\n\n\"0x1\"\n\n\n\n" +
		"x-ms-date:Mon, 02 Jan 2006 15:04:05 GMT\nx-ms-version:2021-12-02\n/acc/c/a%7C%7Cb\ncomp:a,block\ntimeout:30"
	if diff := cmp.Diff(want, c.blobText(r, 5)); diff != "" {
		t.Errorf("blob (-want +got)\n%s", diff)
	}
	if got := strings.Split(c.blobText(r, 0), "\n")[3]; got != "" {
		t.Errorf("the length of nothing is %q", got)
	}
	want = "PUT\n\napplication/json\nMon, 02 Jan 2006 15:04:05 GMT\n/acc/c/a%7C%7Cb?comp=block"
	if diff := cmp.Diff(want, c.tableText(r)); diff != "" {
		t.Errorf("table (-want +got)\n%s", diff)
	}
}

func TestConnectionStrings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"AccountName=n;AccountKey=a2V5==": "n a2V5== ",
		"DefaultEndpointsProtocol=http;AccountName=n;AccountKey=k;EndpointSuffix=x.example": "n k http://n.blob.x.example",
		"AccountName=n;AccountKey=k;EndpointSuffix=x;":                                      "n k https://n.blob.x",
		"BlobEndpoint=http://h:1/n;TableEndpoint=http://h:2/n;AccountName=n;AccountKey=k":   "n k http://h:1/n",
		"UseDevelopmentStorage=true":                                                        emulatorName + " " + emulatorKey + " http://127.0.0.1:10000/" + emulatorName,
	} {
		a, err := ParseConnection(text, Blob)
		if got := fmt.Sprintf("%s %s %s", a.Name, a.Key.Reveal(), a.Endpoint); got != want || err != nil {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "AccountName=n", "secret", "BlobEndpoint=http://h;SharedAccessSignature=sv%3Dsecret"} {
		if _, err := ParseConnection(bad, Blob); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want kind invalid and nothing of the text", bad, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, a := range []Account{
		{Name: "n", Key: component.NewSecret("not base64!")},
		{Name: "n"},
		{Name: "n", Key: component.NewSecret("a2V5"), Endpoint: "127.0.0.1:10000"},
		{Name: "n", Key: component.NewSecret("a2V5"), Endpoint: "ftp://h"},
	} {
		if _, err := New(Blob, a); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "not base64!") {
			t.Errorf("%+v: %v, want kind invalid", a, err)
		}
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	var status int
	var header, body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey acc:") || r.Header.Get("x-ms-date") == "" {
			t.Errorf("headers are %v", r.Header)
		}
		if header != "" {
			w.Header().Set("x-ms-error-code", header)
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	c := made(t, Table, srv.URL)
	for _, answer := range []struct {
		status             int
		header, body, code string
		kind               fault.Kind
	}{
		{412, "ConditionNotMet", "", "ConditionNotMet", fault.Conflict},
		{409, "", `{"odata.error":{"code":"EntityAlreadyExists","message":{"value":"It is there.\nRequestId:1"}}}`, "EntityAlreadyExists", fault.Conflict},
		{404, "", "<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>None.\nTime:1</Message></Error>", "BlobNotFound", fault.NotFound},
		{403, "", "not to be read", "", fault.Denied},
		{413, "RequestBodyTooLarge", "", "RequestBodyTooLarge", fault.Invalid},
		{503, "ServerBusy", "", "ServerBusy", fault.Unavailable},
		{301, "", "", "", fault.Invalid},
	} {
		status, header, body = answer.status, answer.header, answer.body
		_, err := c.Do(t.Context(), Request{Method: http.MethodGet, Path: "/t", Query: url.Values{"a": {"b"}}})
		if err == nil || fault.KindOf(err) != answer.kind || Code(err) != answer.code {
			t.Errorf("%d: %v of kind %v with the code %q, want kind %v", answer.status, err, fault.KindOf(err), Code(err), answer.kind)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%d: the text has lines: %q", answer.status, err)
		}
		if answer.status == 503 && fault.RetryAfter(err) != 7*time.Second {
			t.Errorf("Retry-After is %v", fault.RetryAfter(err))
		}
	}
	status, header, body = 200, "", "value"
	res, err := c.Do(t.Context(), Request{Method: http.MethodGet, Path: "/t"})
	if err != nil || string(res.Body) != "value" {
		t.Errorf("%+v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Do(ctx, Request{Method: http.MethodGet, Path: "/t"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("cancelled: %v", err)
	}
	srv.Close()
	if _, err := c.Do(t.Context(), Request{Method: http.MethodGet, Path: "/t"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without a server: %v", err)
	}
}
