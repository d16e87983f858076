package services

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// recipe tells how one server is installed, laid out and started.
type recipe struct {
	name  string
	ports int
	tools []tool
	// version asks what is installed.
	version func() string
	// lay writes the server's files, and names its address and processes.
	lay func(*Server) error
}

// recipes are all servers, in the order in which they are started.
func recipes() []recipe {
	return []recipe{
		redis(), nats(), mqtt(), memcached(), etcd(), postgres(), rabbitmq(),
		kafka(), sftp(), smtp(), aws(), mysql(), zookeeper(), azurite(), mongodb(), cassandra(), prometheus(), zipkin(), hashicorp(),
	}
}

// tool is one thing that must be there: a program, or something in the cache.
type tool struct {
	name   string
	debian string        // the Debian package that brings it
	found  func() string // where it is; empty when it is not there
	cached bool          // Install makes it itself, from a package registry
}

// program is a tool that is looked for in the PATH and in the folders where
// Debian keeps servers. Their names may have a * for a version; the newest wins.
func program(name, debian string, folders ...string) tool {
	folders = append(folders, "/usr/sbin", "/usr/local/sbin")
	return tool{name: name, debian: debian, found: func() string { return look(name, folders) }}
}

func look(name string, folders []string) string {
	for _, folder := range folders {
		paths, err := filepath.Glob(filepath.Join(folder, name))
		if err == nil && len(paths) > 0 {
			return slices.MaxFunc(paths, func(a, b string) int {
				return len(a) - len(b) + strings.Compare(a, b)
			})
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

func (r recipe) missing() []tool {
	var none []tool
	for _, t := range r.tools {
		if t.found() == "" {
			none = append(none, t)
		}
	}
	return none
}

// number is what a version looks like.
var number = regexp.MustCompile(`\d+\.\d+[\w.]*`)

// says runs a program to find its version.
func says(t tool, args ...string) func() string {
	return func() string {
		// Some end with an error after they said it.
		out, err := exec.Command(t.found(), args...).CombinedOutput()
		if v := number.Find(out); v != nil {
			return string(v)
		}
		return fmt.Sprintf("unknown (%v)", err)
	}
}

// asUser is the user to name in a server's configuration so that it stays what
// it is: servers that are started as root become someone else otherwise.
func asUser() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

// hears is ready when the server, told to, says a word that it says when it
// can serve. An empty telling waits for its greeting.
func hears(tell, want string) func(context.Context, string) error {
	return talk(tell, len(want), func(got string) bool { return got == want })
}

// talk is ready when the first n bytes that the server says are right.
func talk(tell string, n int, right func(string) bool) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		if limit, ok := ctx.Deadline(); ok {
			_ = conn.SetDeadline(limit) // without it the read below waits longer
		}
		if _, err := io.WriteString(conn, tell); err != nil {
			return err
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(bufio.NewReader(conn), got); err != nil {
			return err
		}
		if !right(string(got)) {
			return fmt.Errorf("%s answers %q", addr, got)
		}
		return nil
	}
}

// serves is ready when a page can be had.
func serves(path string) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s%s: %s", addr, path, resp.Status)
		}
		return nil
	}
}
