package redis

import (
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	suite(t, s.Addr())
}

func suite(t *testing.T, addr string) {
	t.Helper()
	conform.Lock(t, Component, conform.LockSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"redisHost": addr} },
		Wrong: map[string]map[string]string{
			"redisHost": {"redisHost": ""},
			"redisType": {"redisHost": addr, "redisType": "cluster"},
		},
	})
}
