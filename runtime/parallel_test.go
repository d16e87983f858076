package runtime

import (
	"context"
	"testing"

	"github.com/penstock-io/penstock/fault"
)

func TestInParallelKeepsWhatMayStillSucceed(t *testing.T) {
	t.Parallel()
	kinds := map[string]fault.Kind{"gone": fault.NotFound, "busy": fault.Unavailable, "wrong": fault.Invalid}
	fail := func(_ context.Context, name string) error {
		if k, bad := kinds[name]; bad {
			return fault.New(k, "send to %s: no", name)
		}
		return nil
	}
	rows := []struct {
		name  string
		names []string
		want  fault.Kind
	}{
		{"one may pass", []string{"gone", "fine", "busy", "wrong"}, fault.Unavailable},
		{"none can pass", []string{"fine", "gone", "wrong"}, fault.NotFound},
	}
	for _, row := range rows {
		if err := inParallel(t.Context(), row.names, fail); fault.KindOf(err) != row.want {
			t.Errorf("%s: kind %v of %v, want %v", row.name, fault.KindOf(err), err, row.want)
		}
	}
	if err := inParallel(t.Context(), []string{"fine"}, fail); err != nil {
		t.Error(err)
	}
}
