//go:build services

package redis

import (
	"context"
	"testing"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// TestConformOnServer has a server of its own, which is killed and whose
// settings are changed.
func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	s := services.Start(t, "redis")
	say := func(t *testing.T, words ...string) {
		t.Helper()
		ctx := context.WithoutCancel(t.Context())
		c, err := client.Open(ctx, component.Env{}, client.Options{RedisHost: s.Addr})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // of a test that has its answer
		if err := c.Do(ctx, c.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	say(t, "CONFIG", "SET", "notify-keyspace-events", "KA")
	conform.Configuration(t, Component, conform.ConfigurationSetup{
		Options: func(t *testing.T) map[string]string {
			say(t, "FLUSHALL")
			return map[string]string{"redisHost": s.Addr}
		},
		Wrong: map[string]map[string]string{"redisHost": {"redisHost": " , "}},
		Set: func(t *testing.T, key, value, version string) {
			say(t, "SET", key, value+"||"+version)
		},
		Delete: func(t *testing.T, key string) { say(t, "DEL", key) },
		Break: func(t *testing.T, meanwhile func()) {
			// The connections of clients that listen are cut, and nobody is let in
			// before it is done.
			say(t, "CONFIG", "SET", "notify-keyspace-events", "")
			meanwhile()
			say(t, "CONFIG", "SET", "notify-keyspace-events", "KA")
			say(t, "CLIENT", "KILL", "TYPE", "pubsub")
		},
	})
}
