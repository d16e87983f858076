//go:build services

package redis

import (
	"context"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// TestACL has a user of the real server who may do little.
func TestACL(t *testing.T) {
	addr, user := services.Need(t, "redis"), conform.Unique(t)
	admin, err := Open(t.Context(), component.Env{}, Options{RedisHost: addr})
	if err != nil {
		t.Fatal(err)
	}
	say := func(words ...string) {
		t.Helper()
		if err := admin.Do(context.WithoutCancel(t.Context()), admin.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	say("ACL", "SETUSER", user, "on", ">secret", "~"+user+":*", "+@all", "-flushall")
	defer func() {
		say("ACL", "DELUSER", user)
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := Options{RedisHost: addr, RedisUsername: user, RedisPassword: component.NewSecret("secret")}
	c, err := Open(t.Context(), component.Env{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Do(t.Context(), c.B().Set().Key(user+":k").Value("v").ExSeconds(60).Build()).Error(); err != nil {
		t.Error(err)
	}
	for name, words := range map[string][]string{"key": {"GET", "other"}, "command": {"FLUSHALL"}} {
		err := Classify(c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error())
		if fault.KindOf(err) != fault.Denied || err == nil {
			t.Errorf("forbidden %s: %v, want an error of kind denied", name, err)
		}
	}
	o.RedisPassword = component.NewSecret("guess")
	if err := ping(t.Context(), o); fault.KindOf(err) != fault.Denied || err == nil {
		t.Errorf("wrong password: %v, want an error of kind denied", err)
	}
}

// TestReconnectOnServer kills the real server and starts it again.
func TestReconnectOnServer(t *testing.T) {
	s := services.Start(t, "redis")
	c, err := Open(t.Context(), component.Env{}, Options{RedisHost: s.Addr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // of a test that has ended
	for range 2 {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := Classify(c.Do(t.Context(), c.B().Ping().Build()).Error()); fault.KindOf(err) != fault.Unavailable || err == nil {
				t.Fatalf("without a server: %v, want an error of kind unavailable", err)
			}
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; {
			err := c.Do(t.Context(), c.B().Ping().Build()).Error()
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("with the server again: %v", err)
			}
		}
	}
}
