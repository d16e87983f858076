//go:build services

package redis

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	suite(t, services.Need(t, "redis"))
}

// do runs a command, which must not fail.
func do(t *testing.T, s *store, words ...string) string {
	t.Helper()
	r := s.c.Do(t.Context(), s.c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", words[0], err)
	}
	text, _ := r.ToString()
	return text
}

// TestStrong: with the consistency strong a change waits for the replica, and
// says so when that does not answer.
func TestStrong(t *testing.T) {
	one, two := services.Start(t, "redis"), services.Start(t, "redis")
	master, replica := opened(t, one.Addr), opened(t, two.Addr)
	host, port, err := net.SplitHostPort(one.Addr)
	if err != nil {
		t.Fatal(err)
	}
	do(t, replica, "REPLICAOF", host, port)
	for end := time.Now().Add(time.Minute); !strings.Contains(do(t, master, "INFO", "replication"), "state=online"); {
		if time.Now().After(end) {
			t.Fatal("the replica does not follow")
		}
	}
	change := state.Change{Key: conform.Unique(t), Value: []byte("1"), Strong: true}
	for i := range 50 {
		change.Value = []byte(strconv.Itoa(i))
		if err := master.Apply(t.Context(), []state.Change{change}); err != nil {
			t.Fatal(err)
		}
		if got := do(t, replica, "HGET", change.Key, "data"); got != strconv.Itoa(i) {
			t.Fatalf("the replica has %q after %d was confirmed", got, i)
		}
	}
	stuck, r := make(chan struct{}), opened(t, two.Addr)
	go func() { // the replica answers nobody until it is killed
		defer close(stuck)
		_ = r.c.Do(t.Context(), r.c.B().Arbitrary("EVAL", "while true do end", "0").Build())
	}()
	defer func() {
		_ = two.Kill()
		<-stuck
	}()
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := replica.c.Do(ctx, replica.c.B().Ping().Build()).Error()
		cancel()
		if err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the replica still answers")
		}
	}
	err = master.Apply(t.Context(), []state.Change{change})
	if fault.KindOf(err) != fault.Timeout || !strings.Contains(err.Error(), "1 of 1 replicas") {
		t.Errorf("a replica that does not answer: %v (%v)", err, fault.KindOf(err))
	}
}

// TestRights: a user without the right to a command or a key is denied.
func TestRights(t *testing.T) {
	addr := services.Need(t, "redis")
	admin := opened(t, addr)
	user := conform.Unique(t)
	do(t, admin, "ACL", "SETUSER", user, "on", ">geheim", "~"+user+"*", "+@read", "+hello", "+auth", "+client", "+ping", "+select")
	t.Cleanup(func() { _ = admin.c.Do(t.Context(), admin.c.B().AclDeluser().Username(user).Build()) })
	s := opened(t, addr, "redisUsername", user, "redisPassword", "geheim")
	err := s.Apply(t.Context(), []state.Change{{Key: user + "a", Value: []byte("1")}})
	if fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "geheim") {
		t.Errorf("save without the right: %v (%v)", err, fault.KindOf(err))
	}
	if _, err := s.Get(t.Context(), []string{"other"}, state.Read{}); fault.KindOf(err) != fault.Denied {
		t.Errorf("read another's key: %v (%v)", err, fault.KindOf(err))
	}
	items := []config.Item{{Name: "redisHost", Value: addr}, {Name: "redisUsername", Value: user}, {Name: "redisPassword", Value: "verkehrt"}}
	if _, err := Component.Open(t.Context(), component.Env{}, items); fault.KindOf(err) != fault.Denied {
		t.Errorf("wrong password: %v", err)
	}
}

// TestFull: a server whose memory is full refuses changes, whole transactions
// too, and still reads.
func TestFull(t *testing.T) {
	s := opened(t, services.Start(t, "redis").Addr)
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	do(t, s, "CONFIG", "SET", "maxmemory", "1mb")
	big := make([]byte, 200<<10)
	var err error
	for i := 0; i < 50 && err == nil; i++ {
		err = s.Transact(t.Context(), []state.Change{{Key: "x" + strconv.Itoa(i), Value: big, Binary: true}, {Key: "y" + strconv.Itoa(i), Value: big, Binary: true}})
	}
	if fault.KindOf(err) != fault.Exhausted {
		t.Errorf("full: %v (%v)", err, fault.KindOf(err))
	}
	if it := get(t, s, "a"); string(it.Value) != "1" {
		t.Errorf("read: %+v", it)
	}
}

// BenchmarkGet1000 reads 1000 keys at once, and one by one with 64 callers.
func BenchmarkGet1000(b *testing.B) {
	d, err := Component.Open(b.Context(), component.Env{}, []config.Item{{Name: "redisHost", Value: services.Need(b, "redis")}})
	if err != nil {
		b.Fatal(err)
	}
	s := d.(*store)
	defer s.Close(b.Context())
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = conform.Unique(b) + strconv.Itoa(i)
		err = errors.Join(err, s.Apply(b.Context(), []state.Change{{Key: keys[i], Value: []byte(`{"n":1}`)}}))
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("together", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Get(b.Context(), keys, state.Read{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64 callers", func(b *testing.B) {
		for b.Loop() {
			var wg sync.WaitGroup
			for c := range 64 {
				wg.Go(func() {
					for i := c; i < len(keys); i += 64 {
						if _, err := s.Get(b.Context(), keys[i:i+1], state.Read{}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
	})
}
