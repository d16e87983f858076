package runtime

import (
	"maps"
	"testing"

	"github.com/penstock-io/penstock/api"
)

// TestWorstBreakers: an app is one target, however many methods are called.
func TestWorstBreakers(t *testing.T) {
	t.Parallel()
	got := worstBreakers([]api.BreakerInfo{
		{Component: "bus", Direction: "outbound", State: "half-open"},
		{Component: "bus", Direction: "inbound", State: "closed"},
		{App: "shop", Method: "a", State: "closed"},
		{App: "shop", Method: "b", State: "open"},
		{App: "shop", Method: "c", State: "half-open"},
	})
	want := map[breakerTarget]float64{{"bus", "outbound"}: 1, {"bus", "inbound"}: 0, {"shop", "app"}: 2}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
