package component_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

type flag struct{ closed chan struct{} }

func (f flag) Close(context.Context) error { close(f.closed); return nil }

func TestCloseWaitsForCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := flag{make(chan struct{})}
		def := component.Define("test.flag", component.About{}, nil, func(context.Context, component.Env, struct{}) (flag, error) { return f, nil })
		i := component.NewInstance[flag](def, component.Env{Name: "f"}, nil, 0)
		if err := i.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Acquire(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- i.Close(t.Context()) }()
		synctest.Wait()
		select {
		case <-f.closed:
			t.Fatal("closed under a call")
		default:
		}
		if _, err := i.Acquire(); fault.KindOf(err) != fault.Unavailable {
			t.Fatalf("a closing component was handed out: %v", err)
		}
		i.Release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		<-f.closed
	})
}

func TestAwaitWaitsForTheOpening(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		f := flag{make(chan struct{})}
		def := component.Define("test.flag", component.About{}, nil, func(context.Context, component.Env, struct{}) (flag, error) {
			if tries++; tries < 3 {
				return f, fault.New(fault.Unavailable, "dial: refused")
			}
			return f, nil
		})
		i := component.NewInstance[flag](def, component.Env{Name: "f"}, nil, 0)
		go i.Run(t.Context())
		if _, err := i.Await(t.Context()); err != nil || tries != 3 {
			t.Fatalf("await: %v after %d tries", err, tries)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := i.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Await(ctx); err == nil {
			t.Fatal("a closed component was handed out")
		}
	})
}
