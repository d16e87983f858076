//go:build services

package postgres

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// table has a table of its own until the test ends.
func table(t *testing.T, server string) string {
	t.Helper()
	name := conform.Unique(t)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, sql := range []string{"DROP TABLE IF EXISTS " + name, "DROP SEQUENCE IF EXISTS " + name + "_fence"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	})
	return name
}

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	server := services.Need(t, "postgres")
	conform.Lock(t, Component, conform.LockSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"connectionString": server, "tableName": table(t, server)}
		},
		Wrong: map[string]map[string]string{
			"connectionString": {"connectionString": ""},
			"tableName":        {"tableName": "x; DROP TABLE y"},
			"timeout":          {"timeout": "1ms"},
		},
	})
}

// TestTokensUnderContention has many owners at one lock that is let go at once:
// each token is larger than the one before, in the order of the grants.
func TestTokensUnderContention(t *testing.T) {
	t.Parallel()
	server := services.Need(t, "postgres")
	env := component.Env{AppID: "app", Name: "locks", Logger: slog.New(slog.DiscardHandler)}
	opened, err := Component.Open(t.Context(), env, []config.Item{
		{Name: "connectionString", Value: server}, {Name: "tableName", Value: table(t, server)}, {Name: "maxConns", Value: "16"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := opened.(lock.Driver)
	defer func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	var mu sync.Mutex
	var tokens []int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			owner := string(rune('a' + i))
			for got := 0; got < 10; {
				g, err := d.TryLock(t.Context(), "lock||x", owner, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if !g.Held {
					continue
				}
				got++
				mu.Lock()
				tokens = append(tokens, g.Token)
				mu.Unlock()
				if st, err := d.Unlock(t.Context(), "lock||x", owner); err != nil || st != lock.Done {
					t.Errorf("unlock: %d, %v", st, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if len(tokens) != 160 {
		t.Errorf("%d grants, want 160", len(tokens))
	}
	for i := 1; i < len(tokens); i++ {
		if tokens[i] <= tokens[i-1] {
			t.Errorf("grant %d has token %d, after %d", i, tokens[i], tokens[i-1])
		}
	}
}
