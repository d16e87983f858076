package inmemory

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{} },
		Wrong:   map[string]map[string]string{"maxSize": {"maxSize": "much"}},
		Forgets: true,
	})
}
