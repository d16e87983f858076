//go:build services

package services_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/services"
)

// TestServersStartAgain stops and kills each server that a test may start for
// itself; Start fails unless it answers again on the same address.
func TestServersStartAgain(t *testing.T) {
	for _, name := range []string{"redis", "nats", "mqtt", "postgres", "rabbitmq", "kafka"} {
		t.Run(name, func(t *testing.T) {
			s := services.Start(t, name)
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				if err := s.Stop(sig); err != nil {
					t.Fatal(err)
				}
				for _, n := range s.Nodes {
					if c, err := net.Dial("tcp", n.Addr); err == nil {
						c.Close()
						t.Fatalf("%s is still there after signal %d", n.Addr, sig)
					}
				}
				begin := time.Now()
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				t.Logf("answers again %s after signal %d", time.Since(begin).Round(time.Millisecond), sig)
			}
		})
	}
}

// TestRedisKeepsWhatItConfirmed sets a key, kills the server and reads the key.
func TestRedisKeepsWhatItConfirmed(t *testing.T) {
	s := services.Start(t, "redis")
	if got := redis(t, s.Addr, "SET k v"); got != "+OK" {
		t.Fatalf("SET: %s", got)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if got := redis(t, s.Addr, "STRLEN k"); got != ":1" {
		t.Errorf("after a kill the key has the length %s", got)
	}
}

func redis(t *testing.T, addr, command string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s\r\n", command)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestFrozenNodeSaysNothing freezes a server and thaws it.
func TestFrozenNodeSaysNothing(t *testing.T) {
	s := services.Start(t, "redis")
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Nodes[0].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "PING\r\n")
	buf := make([]byte, 16)
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := c.Read(buf); err == nil {
		t.Errorf("a frozen server says %q", buf[:n])
	}
	if err := s.Nodes[0].Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "+PONG\r\n" {
		t.Errorf("a thawed server says %q, %v", buf[:n], err)
	}
}
