package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
)

// values is the least that a store does: one call of its driver for each key.
type values struct {
	get func(ctx context.Context, key string) ([]byte, error) // nil: there is none
	set func(ctx context.Context, key string, value []byte) error
}

// openValues opens one of the stores of the state benchmark.
func openValues(ctx context.Context, store, dir string) (values, error) {
	switch store {
	case "in-memory":
		return memoryValues(), nil
	case "sqlite":
		return sqliteValues(ctx, dir)
	case "redis":
		return redisValues(os.Getenv("PENSTOCK_TEST_REDIS"))
	case "postgresql":
		return postgresValues(ctx, os.Getenv("PENSTOCK_TEST_POSTGRES"))
	}
	return values{}, fmt.Errorf("no floor for store %q", store)
}

func memoryValues() values {
	var mu sync.RWMutex
	all := map[string][]byte{}
	return values{
		get: func(_ context.Context, key string) ([]byte, error) {
			mu.RLock()
			defer mu.RUnlock()
			return all[key], nil
		},
		set: func(_ context.Context, key string, value []byte) error {
			mu.Lock()
			defer mu.Unlock()
			all[key] = value
			return nil
		},
	}
}

// sqliteValues shares commits as the store does: what is compared is what stands
// in front of the driver. A version changes with each value, because SQLite does
// not write a row down that is as it was.
func sqliteValues(ctx context.Context, dir string) (values, error) {
	env := component.Env{Name: "floor", DataDir: dir, Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	db, err := sqlite.Open(ctx, env, "floor.db")
	if err != nil {
		return values{}, err
	}
	if err := db.Migrate(ctx, "floor", "CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL)"); err != nil {
		return values{}, errors.Join(err, db.Close())
	}
	read, err := db.Read().PrepareContext(ctx, "SELECT value FROM kv WHERE key = ?")
	if err != nil {
		return values{}, errors.Join(err, db.Close())
	}
	return values{
		get: func(ctx context.Context, key string) (value []byte, err error) {
			if err = read.QueryRowContext(ctx, key).Scan(&value); errors.Is(err, sql.ErrNoRows) {
				err = nil
			}
			return value, err
		},
		set: func(ctx context.Context, key string, value []byte) error {
			return db.Write(ctx, func(tx *sql.Tx) error {
				stmt, err := db.Stmt(tx, "INSERT INTO kv VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1")
				if err == nil {
					_, err = stmt.ExecContext(ctx, key, value)
				}
				return err
			})
		},
	}, nil
}

func redisValues(address string) (values, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true})
	if err != nil {
		return values{}, err
	}
	return values{
		get: func(ctx context.Context, key string) ([]byte, error) {
			value, err := c.Do(ctx, c.B().Hget().Key(key).Field("data").Build()).AsBytes()
			if rueidis.IsRedisNil(err) {
				err = nil
			}
			return value, err
		},
		set: func(ctx context.Context, key string, value []byte) error {
			return c.Do(ctx, c.B().Hset().Key(key).FieldValue().FieldValue("data", rueidis.BinaryString(value)).Build()).Error()
		},
	}, nil
}

func postgresValues(ctx context.Context, server string) (values, error) {
	pool, err := pgxpool.New(ctx, server)
	if err != nil {
		return values{}, err
	}
	if _, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS penstock_bench_floor (key text PRIMARY KEY, value bytea NOT NULL)"); err != nil {
		pool.Close()
		return values{}, err
	}
	return values{
		get: func(ctx context.Context, key string) (value []byte, err error) {
			err = pool.QueryRow(ctx, "SELECT value FROM penstock_bench_floor WHERE key = $1", key).Scan(&value)
			if errors.Is(err, pgx.ErrNoRows) {
				err = nil
			}
			return value, err
		},
		set: func(ctx context.Context, key string, value []byte) error {
			_, err := pool.Exec(ctx, "INSERT INTO penstock_bench_floor VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
			return err
		},
	}, nil
}

// runStateFloor is the least that a program can do that keeps state for others:
// a bare net/http handler, a bare gRPC service, and the driver behind them.
func runStateFloor(ctx context.Context, store, httpAddress, grpcAddress, dir string) error {
	v, err := openValues(ctx, store, dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", grpcAddress)
	if err != nil {
		return err
	}
	service := grpc.NewServer()
	rtv1.RegisterDaprServer(service, &bareService{v: v})
	go func() { _ = service.Serve(l) }()
	server := &http.Server{Addr: httpAddress, Handler: v.handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { service.Stop(); _ = server.Close() })
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func (v values) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1.0/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /v1.0/state/kept/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, err := v.get(r.Context(), r.PathValue("key"))
		if err != nil || value == nil {
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(value)
	})
	mux.HandleFunc("POST /v1.0/state/kept", func(w http.ResponseWriter, r *http.Request) {
		var items []struct {
			Key   string          `json:"key"`
			Value json.RawMessage `json:"value"`
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &items)
		}
		for i := 0; i < len(items) && err == nil; i++ {
			err = v.set(r.Context(), items[i].Key, items[i].Value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// bareService is the two methods of Dapr's service.
type bareService struct {
	rtv1.UnimplementedDaprServer
	v values
}

// GetState implements the service.
func (s *bareService) GetState(ctx context.Context, in *rtv1.GetStateRequest) (*rtv1.GetStateResponse, error) {
	value, err := s.v.get(ctx, in.GetKey())
	return &rtv1.GetStateResponse{Data: value}, err
}

// SaveState implements the service.
func (s *bareService) SaveState(ctx context.Context, in *rtv1.SaveStateRequest) (*emptypb.Empty, error) {
	for _, item := range in.GetStates() {
		if err := s.v.set(ctx, item.GetKey(), item.GetValue()); err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, nil
}
