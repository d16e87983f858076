package instances

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

func list(t *testing.T, r Registry) []Instance {
	t.Helper()
	l, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// child starts a process that runs until its input is closed.
func child(t *testing.T) (cmd *exec.Cmd, end func()) {
	t.Helper()
	cmd = exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { in.Close(); _ = cmd.Wait() }
	t.Cleanup(end)
	return cmd, end
}

// plant writes the file of an instance as its process would.
func plant(t *testing.T, folder string, i Instance) string {
	t.Helper()
	name := filepath.Join(folder, fmt.Sprintf("%d.json", i.Self.PID))
	text := fmt.Sprintf(`{"appId":%q,"self":{"pid":%d,"started":%q},"host":%q}`, i.AppID, i.Self.PID, i.Self.Started, i.Host)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func exist(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestAdd(t *testing.T) {
	t.Parallel()
	r := In(filepath.Join(t.TempDir(), "a", "b"))
	if got := list(t, r); len(got) > 0 {
		t.Fatal(got)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Instance{
		AppID: "shop", HTTPPort: 3500, GRPCPort: 50001, AppPort: 8080, Command: "node app.js", Created: created,
		Runner: Process{PID: 7, Started: "x"}, RunFile: "/dapr.yaml", AppPID: 8, AppLog: "/a.log", Log: "/b.log", Grace: time.Second,
	}
	remove, err := r.Add(want)
	if err != nil {
		t.Fatal(err)
	}
	want.Self, want.Host = Of(os.Getpid()), r.host
	if diff := cmp.Diff([]Instance{want}, list(t, r)); diff != "" {
		t.Error(diff)
	}
	left, err := filepath.Glob(filepath.Join(r.folders[0], "*"))
	if err != nil || len(left) != 1 {
		t.Error(left, err)
	}
	remove()
	if got := list(t, r); len(got) > 0 {
		t.Error(got)
	}
}

func TestSecondFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := In(filepath.Join(file, "below"), filepath.Join(dir, "second"))
	remove, err := r.Add(Instance{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	if !exist(filepath.Join(dir, "second", fmt.Sprintf("%d.json", os.Getpid()))) {
		t.Error("it is not in the second folder")
	}
	if _, err := In(filepath.Join(file, "below")).Add(Instance{AppID: "shop"}); err == nil {
		t.Error("no error where nothing can be written")
	}
}

func TestEndedProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := In(dir)
	cmd, end := child(t)
	self := Of(cmd.Process.Pid)
	name := plant(t, dir, Instance{AppID: "shop", Self: self, Host: r.host})
	if got := list(t, r); len(got) != 1 || got[0].AppID != "shop" {
		t.Fatal(got)
	}
	// A number that now belongs to another process.
	plant(t, dir, Instance{AppID: "shop", Self: Process{PID: self.PID, Started: "earlier"}, Host: r.host})
	if got := list(t, r); len(got) > 0 || exist(name) {
		t.Error("a reused number is mistaken for the instance", got)
	}
	plant(t, dir, Instance{AppID: "shop", Self: self, Host: r.host})
	end()
	if got := list(t, r); len(got) > 0 || exist(name) {
		t.Error("an ended process is listed", got)
	}
	// What another machine has written is none of our business.
	plant(t, dir, Instance{AppID: "shop", Self: self, Host: r.host + "x"})
	if got := list(t, r); len(got) > 0 || !exist(name) {
		t.Error("the file of another machine is", got)
	}
}

func TestZombiesHaveEnded(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := Of(cmd.Process.Pid)
	in.Close()
	_, _ = out.Read(make([]byte, 1)) // ends with the process, which nobody has waited for
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.Alive() { // the test's own limit ends it
		<-tick.C
	}
	_ = cmd.Wait()
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := In(dir)
	for name, text := range map[string]string{
		"notes.txt": "hello", "1.json": "{", "2.json": `{"appId":"a","self":{"pid":3}}`,
		fmt.Sprintf("%d.json", os.Getpid()): fmt.Sprintf(`{"self":{"pid":%d}}`, os.Getpid()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, r); len(got) > 0 {
		t.Error(got)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 4 {
		t.Error("files of others are gone:", left, err)
	}
}

func TestOpenFolders(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	plant(t, dir, Instance{AppID: "shop", Self: Of(os.Getpid()), Host: In().host})
	got, err := In(dir).List()
	if len(got) > 0 || fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "others can write to it") {
		t.Error(got, err)
	}
	if _, err := In(dir).Add(Instance{AppID: "shop"}); err == nil {
		t.Error("it writes into a folder of everybody")
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	cmd, _ := child(t)
	p := Of(cmd.Process.Pid)
	waited := make(chan struct{})
	go func() { defer close(waited); _ = cmd.Wait() }()
	if err := p.Stop(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	<-waited
	if err := p.Stop(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if err := (Process{}).Stop(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
}

func TestStopOfTheDeaf(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; cat`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	err = Of(cmd.Process.Pid).Stop(t.Context(), 50*time.Millisecond)
	if fault.KindOf(err) != fault.Timeout || !strings.Contains(err.Error(), "it still runs after 50ms; kill -9") {
		t.Error(err)
	}
	in.Close()
	_ = cmd.Wait()
}
