//go:build services

package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/port"
	"github.com/penstock-io/penstock/test/services"
)

// server starts a Redis of this test's own and returns its port. The last
// arguments come before the port.
func server(t *testing.T, args ...string) (at string, kill func()) {
	t.Helper()
	services.Need(t, "redis") // it is installed, and the report names it
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	at = fmt.Sprint(p)
	cmd := exec.Command("redis-server", append(args, "--port", at, "--bind", "127.0.0.1", "--dir", t.TempDir())...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	until(t, "port "+at+" answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+at)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return at, kill
}

// until polls for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func connected(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Open(t.Context(), component.Env{}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// say sends a command and returns what was answered.
func (c *Client) say(t *testing.T, words ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return c.Do(ctx, c.B().Arbitrary(words[0]).Keys(words[1:2]...).Args(words[2:]...).Build()).ToString()
}

// TestSentinel kills the master: what the sentinel makes the new one is found
// without a new connection by the caller, and has what was written.
func TestSentinel(t *testing.T) {
	master, kill := server(t, "--save", "")
	replica, _ := server(t, "--save", "", "--replicaof", "127.0.0.1", master)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := "sentinel monitor shop 127.0.0.1 " + master + " 1\nsentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 5000\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel, _ := server(t, conf, "--sentinel")
	watcher := connected(t, Options{RedisHost: "127.0.0.1:" + sentinel})
	until(t, "the sentinel knows the replica", func() bool {
		text, err := watcher.say(t, "INFO", "sentinel")
		return err == nil && strings.Contains(text, "slaves=1")
	})
	c := connected(t, Options{RedisHost: "127.0.0.1:" + sentinel, Failover: true, SentinelMasterName: "shop"})
	if _, err := c.say(t, "SET", "k", "v"); err != nil {
		t.Fatal(err)
	}
	behind := connected(t, Options{RedisHost: "127.0.0.1:" + replica})
	until(t, "the replica has it", func() bool {
		v, err := behind.say(t, "GET", "k")
		return err == nil && v == "v"
	})
	kill()
	began := time.Now()
	until(t, "the new master takes writes", func() bool {
		_, err := c.say(t, "SET", "k2", "v")
		return err == nil
	})
	t.Logf("written again after %v", time.Since(began))
	if v, err := c.say(t, "GET", "k"); err != nil || v != "v" {
		t.Errorf("what was written before is %q, %v", v, err)
	}
	until(t, "it was the replica that was written to", func() bool { // which has closed its connections
		v, err := behind.say(t, "GET", "k2")
		return err == nil && v == "v"
	})
}

// TestCluster writes keys of many slots, which two servers have.
func TestCluster(t *testing.T) {
	var nodes []*Client
	var ports []string
	for _, slots := range [][]string{{"0", "8000"}, {"8001", "16383"}} {
		bus, err := port.Free()
		if err != nil {
			t.Fatal(err)
		}
		at, _ := server(t, "--save", "", "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(bus))
		c := connected(t, Options{RedisHost: "127.0.0.1:" + at})
		if _, err := c.say(t, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]); err != nil {
			t.Fatal(err)
		}
		if len(nodes) == 0 {
			nodes, ports = append(nodes, c), append(ports, at, fmt.Sprint(bus))
			continue
		}
		nodes = append(nodes, c)
		if _, err := c.say(t, "CLUSTER", "MEET", "127.0.0.1", ports[0], ports[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		until(t, "the cluster is one", func() bool {
			text, err := n.say(t, "CLUSTER", "INFO")
			return err == nil && strings.Contains(text, "cluster_state:ok") && strings.Contains(text, "cluster_known_nodes:2")
		})
	}
	c := connected(t, Options{RedisHost: "127.0.0.1:" + ports[0], RedisType: "cluster"})
	for i := range 200 {
		key := fmt.Sprint("k", i)
		if _, err := c.say(t, "SET", key, key); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		key := fmt.Sprint("k", i)
		if v, err := c.say(t, "GET", key); err != nil || v != key {
			t.Errorf("%s is %q, %v", key, v, err)
		}
	}
	for i, n := range nodes {
		if n, err := n.Do(t.Context(), n.B().Dbsize().Build()).AsInt64(); err != nil || n == 0 || n == 200 {
			t.Errorf("server %d has %d keys, %v; want some", i, n, err)
		}
	}
}
