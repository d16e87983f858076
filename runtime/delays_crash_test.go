package runtime_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/runtime"
)

// childFolder, when it is set, makes the test binary an instance to be killed.
const childFolder = "PENSTOCK_TEST_CHILD"

// child runs an instance on a folder and prints where it listens.
func child(folder string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r, err := runtime.New(runtime.Options{
		AppID: "shop", DataDir: filepath.Join(folder, "data"), Resources: []string{folder}, Components: components(), Listeners: []net.Listener{l},
	})
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/v1.0\n", l.Addr())
	return r.Run(context.Background())
}

// What a publish answered 204 for is on the disk, whatever becomes of the
// process right after it.
func TestDelayOutlivesAKilledProcess(t *testing.T) {
	t.Parallel()
	a := newApp(t, lateSubscription)
	in, o := prepare(t, a, plainYAML)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childFolder+"="+in.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	killed := instance{url: strings.TrimSpace(line)}
	eventually(t, "ready", func() bool { return killed.get(t, "/healthz") == http.StatusNoContent })
	want := map[string]bool{}
	for i := range 20 {
		data := fmt.Sprintf(`{"n":%d}`, i)
		want[data] = true
		killed.publish(t, "late?metadata.delay=1s", data)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	in.run(t, o)
	for len(want) > 0 {
		e, err := cloudevents.Scan([]byte(a.next(t, "/late").body))
		if err != nil {
			t.Fatal(err)
		}
		delete(want, string(e.Data()))
	}
}
