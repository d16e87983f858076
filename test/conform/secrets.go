package conform

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// SecretsSetup says what a secret store holds.
type SecretsSetup struct {
	// Options makes working options and the secrets behind them.
	Options func(t *testing.T) map[string]string
	// Wrong are options that Check must refuse, as in [BindingSetup].
	Wrong map[string]map[string]string
	// Want are secrets that Get and Bulk must return.
	Want map[string]map[string]string
	// Missing is a key that the store does not have.
	Missing string
	// Denied are keys that exist and that the store must not give out.
	Denied []string
}

// Secrets runs the suite of secret stores.
func Secrets(t *testing.T, def component.Definition, setup SecretsSetup) {
	t.Helper()
	definition(t, def, setup.Options, setup.Wrong)
	for name, run := range map[string]func(*testing.T, secrets.Driver, SecretsSetup){
		"get": secretsGet, "bulk": secretsBulk, "concurrent reading": secretsConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			d := opened(t, def, environment(t), setup.Options(t))
			store, ok := d.(secrets.Driver)
			if !ok {
				t.Fatalf("%T does not implement secrets.Driver", d)
			}
			run(t, store, setup)
			shut(t, d)
			shut(t, d)
		})
	}
}

func secretsGet(t *testing.T, d secrets.Driver, setup SecretsSetup) {
	for key, want := range setup.Want {
		got, err := d.Get(t.Context(), key, nil)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("get %q: %v (-want +got)\n%s", key, err, diff)
		}
		for name := range got {
			got[name] = "changed by the caller"
		}
		again, err := d.Get(t.Context(), key, nil)
		if diff := cmp.Diff(want, again); err != nil || diff != "" {
			t.Errorf("get %q after the caller changed the first answer: %v (-want +got)\n%s", key, err, diff)
		}
	}
	if got, err := d.Get(t.Context(), setup.Missing, nil); err == nil || fault.KindOf(err) != fault.NotFound {
		t.Errorf("get a missing key: %v, %v; want an error of kind not found", got, err)
	}
	for _, key := range setup.Denied {
		if got, err := d.Get(t.Context(), key, nil); err == nil || fault.KindOf(err) != fault.Denied || got != nil {
			t.Errorf("get %q: an answer of %d values, %v; want an error of kind denied", key, len(got), err)
		}
	}
}

func secretsBulk(t *testing.T, d secrets.Driver, setup SecretsSetup) {
	all, err := d.Bulk(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range setup.Want {
		if diff := cmp.Diff(want, all[key]); diff != "" {
			t.Errorf("bulk has of %q (-want +got)\n%s", key, diff)
		}
	}
	for _, key := range append(setup.Denied, setup.Missing) {
		if all[key] != nil {
			t.Errorf("bulk gives out %q", key)
		}
	}
}

func secretsConcurrent(t *testing.T, d secrets.Driver, setup SecretsSetup) {
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 20 {
				secretsGet(t, d, setup)
			}
			if _, err := d.Bulk(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
}
