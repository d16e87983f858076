package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// helper is the variable that makes this program announce "shop" in a file.
const helper = "PENSTOCK_TEST_SQLITE_ANNOUNCE"

func TestMain(m *testing.M) {
	if path := os.Getenv(helper); path != "" {
		announceForever(path)
	}
	os.Exit(m.Run())
}

// announceForever is what the other process does until its standard input ends.
func announceForever(path string) {
	ctx, cancel := context.WithCancel(context.Background())
	d, err := Component.Open(ctx, component.Env{Logger: slog.New(slog.DiscardHandler)}, items(path))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString(0)
		cancel()
	}()
	fmt.Println("announcing")
	if err := d.(names.Announcer).Announce(ctx, self(1+os.Getpid()%65000)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func items(path string) []config.Item {
	return []config.Item{{Name: "connectionString", Value: path}, {Name: "updateInterval", Value: "3s"}, {Name: "timeout", Value: "2s"}, {Name: "cleanupInterval", Value: "1s"}}
}

func self(port int) names.Self {
	return names.Self{App: names.App{ID: "shop"}, Host: "127.0.0.1", InternalPort: port}
}

func opened(t *testing.T, path string) *resolver {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, items(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*resolver)
}

// start runs another process that announces itself.
func start(t *testing.T, path string) (stop, kill func() error, address string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helper+"="+path)
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
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "announcing\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return in.Close, cmd.Process.Kill, fmt.Sprintf("127.0.0.1:%d", 1+cmd.Process.Pid%65000)
}

// await resolves until the answer is want.
func await(t *testing.T, r *resolver, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		got, err = r.Resolve(t.Context(), names.App{ID: "shop"})
		if slices.Sort(got); slices.Equal(got, want) && (err == nil || fault.KindOf(err) == fault.NotFound) {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("found %v (%v), want %v", got, err, want)
}

// Processes find each other through the file; one that stops is gone at once, one
// that is killed after updateInterval, and its row with the next cleaning.
func TestProcessesFindEachOther(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "names.db")
	r := opened(t, path)
	await(t, r)
	stop, _, a := start(t, path)
	_, kill, b := start(t, path)
	_, _, c := start(t, path)
	await(t, r, a, b, c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	await(t, r, b, c)
	if err := kill(); err != nil {
		t.Fatal(err)
	}
	await(t, r, c)
	rows := -1
	for end := time.Now().Add(60 * time.Second); rows != 1 && time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if err := r.db.Read().QueryRowContext(t.Context(), "SELECT count(*) FROM hosts").Scan(&rows); err != nil {
			t.Fatal(err)
		}
	}
	if rows != 1 {
		t.Errorf("%d rows are left", rows)
	}
}

// The tables are those that Dapr's component makes, whichever comes first.
func TestLayoutIsDaprs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "names.db")
	r := opened(t, path)
	var version string
	if err := r.db.Read().QueryRow("SELECT value FROM metadata WHERE key = 'nr-migrations'").Scan(&version); err != nil || version != "1" {
		t.Errorf("version %q, %v", version, err)
	}
	err := r.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO hosts (registration_id, address, app_id, namespace, last_update) VALUES ('x', '10.0.0.1:50002', 'shop', '', unixepoch(CURRENT_TIMESTAMP)), ('y', '10.0.0.2:50002', 'shop', '', 17)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, "10.0.0.1:50002")
	err = r.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE metadata SET value = '9' WHERE key = 'nr-migrations'")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Component.Open(t.Context(), component.Env{}, items(path))
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "newer build") {
		t.Errorf("a layout from a newer build: %v", err)
	}
}

// A row that somebody took away is put back by whoever announces.
func TestLostRegistration(t *testing.T) {
	t.Parallel()
	r := opened(t, filepath.Join(t.TempDir(), "names.db"))
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { failed <- r.Announce(ctx, self(7)) }()
	await(t, r, "127.0.0.1:7")
	err := r.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM hosts")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-failed; fault.KindOf(err) != fault.Conflict {
		t.Errorf("got %v, want an error that has the caller announce again", err)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for option, value := range map[string]string{
		"tableName": "a b", "metadataTableName": "1st", "updateInterval": "2500ms", "timeout": "0s", "cleanupInterval": "1ms",
	} {
		problems := Component.Check([]config.Item{{Name: option, Value: value}})
		if len(problems) != 1 || !strings.Contains(problems[0].Text, option) {
			t.Errorf("%s %q: %v", option, value, problems)
		}
	}
	problems := Component.Check([]config.Item{{Name: "timeout", Value: "5s"}})
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "at least 1s more than timeout") {
		t.Errorf("a timeout as long as the interval: %v", problems)
	}
}
