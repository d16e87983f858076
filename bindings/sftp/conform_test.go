package sftp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	fake "github.com/penstock-io/penstock/test/fake/sftp"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	server := fake.Start(t)
	for _, after := range []string{move, del} {
		t.Run(after, func(t *testing.T) {
			suite(t, func(t *testing.T) map[string]string {
				return map[string]string{
					"address": server.Addr(), "username": fake.Username, "password": fake.Password,
					"hostPublicKey": server.HostKey(), "rootPath": t.TempDir(), "after": after,
				}
			})
		})
	}
}

// suite runs what every binding promises on a server; options say where it is
// and a folder of its own, which is also one of this machine.
func suite(t *testing.T, options func(*testing.T) map[string]string) {
	t.Helper()
	var n atomic.Int64
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			o := options(t)
			o["inbox"], o["stableFor"], o["interval"], o["claimTimeout"] = "in", "5ms", "20ms", "10s"
			return o
		},
		Wrong: map[string]map[string]string{
			"address": {"address": "a/b"}, "password": {"password": "", "privateKey": ""}, "privateKey": {"privateKey": "x"},
			"hostPublicKey": {"hostPublicKey": "x"}, "inbox": {"inbox": "../x"}, "pattern": {"pattern": "a/b"},
			"doneDir": {"doneDir": "/tmp"}, "failedDir": {"failedDir": "."}, "maxFileSize": {"maxFileSize": "0"},
			"stableFor": {"stableFor": "-1s"}, "interval": {"interval": "1ms"}, "claimTimeout": {"claimTimeout": "1ms"},
			"fileName": {"fileName": "../x"}, "deliver": {"deliver": "half"}, "after": {"after": "burn"},
		},
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			t.Helper()
			dir := filepath.Join(options["rootPath"], "in")
			for _, body := range bodies {
				name := filepath.Join(dir, fmt.Sprintf("file%04d", n.Add(1)))
				err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(name+".tmp", []byte(body), 0o600), os.Rename(name+".tmp", name))
				if err != nil {
					t.Fatal(err)
				}
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			named := map[string]string{"fileName": "a/b"}
			return []bindings.Request{
				{Operation: "create", Data: []byte("x"), Metadata: named},
				{Operation: "get", Metadata: named},
				{Operation: "list"},
				{Operation: "delete", Metadata: named},
			}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data})
			if err != nil {
				return nil, err
			}
			resp, err = out.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: resp.Metadata})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "missing file", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"fileName": "no/file"}}, Kind: fault.NotFound},
			{Name: "climbing", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"fileName": "../x"}}, Kind: fault.Invalid},
			{Name: "absolute", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"fileName": "/etc/passwd"}}, Kind: fault.Invalid},
			{Name: "another root", Request: bindings.Request{Operation: "list", Metadata: map[string]string{"rootPath": "/"}}, Kind: fault.Invalid},
			{Name: "long name", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"fileName": strings.Repeat("x", 10_240)}}, Kind: fault.Invalid},
			{Name: "no name", Request: bindings.Request{Operation: "get"}, Kind: fault.Invalid},
			{Name: "folder", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"fileName": "in"}}, Kind: fault.Invalid},
		},
	})
}
