package contract

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// sample is the program of examples/pluggable.
type sample struct {
	binary, folder string
	cmd            *exec.Cmd
}

func buildSample(t *testing.T) *sample {
	t.Helper()
	folder, err := os.MkdirTemp("", "plug") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	s := &sample{binary: filepath.Join(t.TempDir(), "sample"), folder: folder}
	build := exec.Command("go", "build", "-C", "../..", "-o", s.binary, "./examples/pluggable")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the sample: %v\n%s", err, out)
	}
	return s
}

// run starts the program until the test ends, or stop.
func (s *sample) run(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(s.binary)
	s.cmd.Env = []string{"DAPR_COMPONENTS_SOCKETS_FOLDER=" + s.folder}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	eventually(t, "the sample listens", func() bool {
		c, err := net.Dial("unix", filepath.Join(s.folder, "sample.sock"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop kills the program, which leaves its socket behind.
func (s *sample) stop() {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGKILL)
		s.cmd.Wait()
		s.cmd = nil
	}
}

// A sidecar with pluggable components: ready only when their program is there,
// events both ways, a failure delivered again, and a program that dies and comes
// back.
func TestPluggable(t *testing.T) {
	t.Parallel()
	resources, err := os.ReadFile("../../examples/pluggable/resources/components.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{subscribe: `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`, reply: func(c call, n int) answer {
		if c.path == "/orders" && n == 1 {
			return answer{status: 500}
		}
		return answer{}
	}}
	a.serve(t)
	s := buildSample(t)
	s.run(t)
	s.stop() // the socket is there and nobody answers
	sc := start(t, setup{
		app: a.port, resources: string(resources), starting: true, env: []string{"DAPR_COMPONENTS_SOCKETS_FOLDER=" + s.folder},
	})
	checkProblem(t, get(t, sc.api+"/healthz"), 500, "ERR_HEALTH_NOT_READY", "")
	s.run(t)
	ready := func() bool { return get(t, sc.api+"/healthz").status == 204 }
	eventually(t, "ready", ready)
	sc.checkCapabilities(t)

	// A subscription begins in the background; the sample keeps nothing for
	// groups that were never there.
	eventually(t, "the subscription works", func() bool {
		sc.publish(t, "bus/orders", `"first"`)
		return len(a.got("/orders")) > 1
	})
	if r := send(t, request{method: "POST", url: sc.api + "/bindings/loop", contentType: "application/json", body: `{"operation":"create","data":"round"}`}); r.status/100 != 2 {
		t.Errorf("invoke: %d %s", r.status, r.body)
	}
	if c := a.wait(t, "/loop", 1)[0]; string(c.body) != `"round"` && string(c.body) != "round" {
		t.Errorf("the input brought %s", c.body)
	}

	s.stop()
	r := send(t, request{method: "POST", url: sc.api + "/publish/bus/orders", contentType: "application/json", body: `"lost"`})
	checkProblem(t, r, 500, "ERR_PUBSUB_PUBLISH_MESSAGE", "DAPR_PUBSUB_PUBLISH_MESSAGE")
	s.run(t)
	eventually(t, "the subscription works again", func() bool {
		sc.publish(t, "bus/orders", `"again"`)
		return slices.ContainsFunc(a.got("/orders"), func(c call) bool { return c.data(t) == `"again"` })
	})
}

func (sc *sidecar) checkCapabilities(t *testing.T) {
	t.Helper()
	var m struct {
		Components []struct {
			Name, Type   string
			Capabilities []string
		}
	}
	if err := json.Unmarshal([]byte(get(t, sc.api+"/metadata").body), &m); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Components {
		if c.Name == "loop" && (c.Type != "bindings.sample" || !slices.Equal(c.Capabilities, []string{"INPUT_BINDING", "OUTPUT_BINDING"})) {
			t.Errorf("metadata of the binding: %+v", c)
		}
	}
	if len(m.Components) != 2 {
		t.Errorf("components %+v", m.Components)
	}
}
