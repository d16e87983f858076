package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestOutputBinding(t *testing.T) {
	t.Parallel()
	for _, w := range []wire{overHTTP, overGRPC} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			p := sidecar(t, w, 0, strings.Replace(bindingsYAML, "OUT", out, 1))
			if w == overHTTP {
				status, body := post(t, p.api+"/bindings/store", "application/json", `{"operation":"create","data":{"a": 1.0},"metadata":{"fileName":"x.json"}}`)
				if status != 200 && status != 204 {
					t.Fatalf("output binding: %d %s", status, body)
				}
			} else if err := p.client().InvokeOutputBinding(t.Context(), &client.InvokeBindingRequest{
				Name: "store", Operation: "create", Data: []byte(`{"a": 1.0}`), Metadata: map[string]string{"fileName": "x.json"},
			}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(out, "x.json")); err != nil || string(b) != `{"a": 1.0}` {
				t.Errorf("stored %q, %v", b, err)
			}
			e, err := p.client().InvokeBinding(t.Context(), &client.InvokeBindingRequest{
				Name: "store", Operation: "get", Metadata: map[string]string{"fileName": "x.json"},
			})
			if err != nil || string(e.Data) != `{"a": 1.0}` {
				t.Errorf("got back %+v, %v", e, err)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(file, []byte(`{"password":"open","nested":{"key":"sesame"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sidecar(t, overGRPC, 0, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: "`+file+`"}]}
`).client()
	one, err := c.GetSecret(t.Context(), "vault", "password", nil)
	if diff := cmp.Diff(map[string]string{"password": "open"}, one); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	all, err := c.GetBulkSecret(t.Context(), "vault", nil)
	want := map[string]map[string]string{"password": {"password": "open"}, "nested:key": {"nested:key": "sesame"}}
	if diff := cmp.Diff(want, all); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := c.GetSecret(t.Context(), "vault", "nothing", nil); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a secret that is not there: %v", err)
	}
}

// What one call has encrypted the other decrypts, also when it is far longer
// than a message may be.
func TestCrypto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), bytes.Repeat([]byte{0xfb}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sidecar(t, overGRPC, 0, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: keys}
spec: {type: crypto.dapr.localstorage, version: v1, metadata: [{name: path, value: "`+dir+`"}]}
`).client()
	options := client.EncryptOptions{ComponentName: "keys", KeyName: "key", KeyWrapAlgorithm: "AES"}
	data := bytes.Repeat([]byte("a page of a long letter\n"), 1<<20) // 24 MiB
	for _, size := range []int{1, 11, len(data)} {
		sealed, err := c.Encrypt(t.Context(), bytes.NewReader(data[:size]), options)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := c.Decrypt(t.Context(), sealed, client.DecryptOptions{ComponentName: "keys"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data[:size]) {
			t.Errorf("%d of %d bytes came back, %v", len(got), size, err)
		}
	}
	// Without data the SDK sends no options either.
	nothing, err := c.Encrypt(t.Context(), strings.NewReader(""), options)
	if err == nil {
		_, err = io.ReadAll(nothing)
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("nothing encrypted: %v", err)
	}
	sealed, err := c.Encrypt(t.Context(), strings.NewReader("data"), options)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := io.ReadAll(sealed)
	if err != nil {
		t.Fatal(err)
	}
	doc[len(doc)-1] ^= 1
	if got, err := read(c.Decrypt(t.Context(), bytes.NewReader(doc), client.DecryptOptions{ComponentName: "keys"})); status.Code(err) != codes.Internal || len(got) > 0 {
		t.Errorf("a changed document: %q, %v", got, err)
	}
	options.KeyName = "none"
	if _, err := read(c.Encrypt(t.Context(), strings.NewReader("data"), options)); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "none") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func read(r io.Reader, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestMetadataAndShutdown(t *testing.T) {
	t.Parallel()
	p := sidecar(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1)+declaredYAML)
	c := p.client()
	if err := c.SetMetadata(t.Context(), "colour", "blue"); err != nil {
		t.Fatal(err)
	}
	m, err := c.GetMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "shop" || m.ExtendedMetadata["colour"] != "blue" || len(m.RegisteredComponents) != 1 || m.RegisteredComponents[0].Name != "bus" || m.RegisteredComponents[0].Type != "pubsub.in-memory" || m.RegisteredComponents[0].Version != "v1" {
		t.Errorf("metadata is %+v", m)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("penstock ended with %v", err)
	}
}

func TestWaitForAPenstockThatStartsLate(t *testing.T) {
	t.Parallel()
	p := prepare(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1))
	connected := make(chan error, 1)
	go func() { // the SDK dials until something listens
		c, err := client.NewClientWithAddressContext(t.Context(), p.addr)
		if err == nil {
			defer c.Close()
			err = errors.Join(c.Wait(t.Context(), time.Minute), c.PublishEvent(t.Context(), "bus", "t", "early"))
		}
		connected <- err
	}()
	p.start()
	if err := receive(t, connected, "the client's connection"); err != nil {
		t.Error(err)
	}
}

func TestAddressesOfTheClient(t *testing.T) {
	t.Parallel()
	sockets, err := os.MkdirTemp("", "ps") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	p := sidecar(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1))
	for _, addr := range []string{p.addr, "http://" + p.addr, "dns:" + p.addr, strings.Replace(p.addr, "127.0.0.1", "localhost", 1)} {
		c, err := client.NewClientWithAddressContext(t.Context(), addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if err := c.PublishEvent(t.Context(), "bus", "t", "hello"); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		c.Close()
	}
	q := prepare(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1), "--unix-domain-socket", sockets)
	q.start()
	c, err := client.NewClientWithSocket(filepath.Join(sockets, "dapr-shop-grpc.socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "a publish over the socket", func() bool { return c.PublishEvent(t.Context(), "bus", "t", "hello") == nil })
}

func TestErrors(t *testing.T) {
	t.Parallel()
	p := sidecar(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1))
	c := p.client()
	binding := func(name string) error {
		_, err := c.InvokeBinding(t.Context(), &client.InvokeBindingRequest{Name: name, Operation: "create"})
		return err
	}
	_, secret := c.GetSecret(t.Context(), "nobody", "s", nil)
	_, state := c.GetState(t.Context(), "nobody", "s", nil)
	_, lock := c.TryLockAlpha1(t.Context(), "nobody", &client.LockRequest{LockOwner: "me", ResourceID: "r", ExpiryInSeconds: 1})
	_, invoke := c.InvokeMethod(t.Context(), "nobody", "m", "get")
	_, job := c.GetJobAlpha1(t.Context(), "j")
	for _, test := range []struct {
		name   string
		err    error
		code   codes.Code
		text   string // in the message
		reason string
	}{
		{"pub/sub that is not there", c.PublishEvent(t.Context(), "nobody", "t", "x"), codes.InvalidArgument, "nobody", "DAPR_PUBSUB_NOT_FOUND"},
		{"bulk to a pub/sub that is not there", c.PublishEvents(t.Context(), "nobody", "t", []any{"x"}).Error, codes.InvalidArgument, "nobody", "DAPR_PUBSUB_NOT_FOUND"},
		{"binding that is not there", binding("nobody"), codes.Internal, "nobody", "ERR_INVOKE_OUTPUT_BINDING"},
		{"no secret stores", secret, codes.FailedPrecondition, "secret", "ERR_SECRET_STORES_NOT_CONFIGURED"},
		{"no state stores", state, codes.FailedPrecondition, "state", "DAPR_STATE_NOT_CONFIGURED"},
		{"no lock stores", lock, codes.FailedPrecondition, "lock", "ERR_LOCK_STORE_NOT_CONFIGURED"},
		{"an app that nobody runs", invoke, codes.Internal, "nobody", "ERR_DIRECT_INVOKE"},
		{"an API of Dapr's that is not here", job, codes.Unimplemented, "GetJob", "ERR_API_UNIMPLEMENTED"},
	} {
		st, ok := status.FromError(test.err)
		if !ok || st.Code() != test.code || !strings.Contains(strings.ToLower(st.Message()), strings.ToLower(test.text)) {
			t.Errorf("%s: %v", test.name, test.err)
		}
		if !slices.ContainsFunc(st.Details(), func(d any) bool {
			info, ok := d.(*errdetails.ErrorInfo)
			return ok && info.GetReason() == test.reason && info.GetDomain() == "dapr.io"
		}) {
			t.Errorf("%s: details are %v", test.name, st.Details())
		}
	}
	// A message larger than either side takes by default is told apart.
	if err := c.PublishEvent(t.Context(), "bus", "t", strings.Repeat("x", 5<<20)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("5 MiB: %v", err)
	}
	if err := c.PublishEvent(t.Context(), "bus", "t", strings.Repeat("x", 3<<20)); err != nil {
		t.Errorf("3 MiB: %v", err)
	}
}

func TestAPIToken(t *testing.T) {
	t.Parallel()
	p := prepare(t, overGRPC, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1))
	p.env = []string{"DAPR_API_TOKEN=sesame"}
	p.start()
	p.ready()
	c := p.connect()
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "wrong": codes.Unauthenticated, "sesame": codes.OK} {
		c.WithAuthToken(token)
		if err := c.PublishEvent(t.Context(), "bus", "t", "x"); status.Code(err) != want {
			t.Errorf("token %q: %v, want %v", token, err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		// The SDK may tell the refusal as the end of the stream it wrote to.
		if _, err := c.Subscribe(ctx, topic("t")); (err == nil) != (want == codes.OK) {
			t.Errorf("token %q: subscribe: %v, want %v", token, err, want)
		}
		cancel()
	}
}

// asApp makes this program the app of TestEnvironmentOfAnApp.
const asApp = "PENSTOCK_TEST_APP"

// beApp is an app that knows no more than its environment.
func beApp() int {
	c, err := client.NewClient()
	if err == nil {
		err = c.PublishEvent(context.Background(), "bus", "t", "from the app")
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("published")
	return 0
}

func TestEnvironmentOfAnApp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bus.yaml"), []byte(strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "run", "--app-id", "shop", "--resources-path", dir, "--data-dir", filepath.Join(dir, "data"),
		"--dapr-http-port", fmt.Sprint(freePort(t)), "--dapr-grpc-port", fmt.Sprint(freePort(t)), "--", self)
	cmd.Env = append(os.Environ(), asApp+"=1", "DAPR_API_TOKEN=sesame")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "published") {
		t.Errorf("%v\n%s", err, out)
	}
}
