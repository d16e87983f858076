package redis

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestInterop(t *testing.T) {
	s := fake(t)
	conform.Interop(t, "redis", conform.InteropSetup{
		Driver: openAt(t, s.Addr()),
		Write: func(t *testing.T, l conform.Layout) {
			t.Helper()
			values := []string{"data", l.Body}
			for name, value := range l.Fields {
				values = append(values, name, value)
			}
			if _, err := s.XAdd(conform.InteropTopic, "*", values); err != nil {
				t.Fatal(err)
			}
		},
		Look: func(t *testing.T) func() conform.Layout {
			return func() conform.Layout {
				entries, err := s.Stream(conform.InteropTopic)
				if err != nil || len(entries) != 1 {
					t.Fatalf("stream has %v, %v", entries, err)
				}
				l := conform.Layout{Fields: map[string]string{}}
				for v := entries[0].Values; len(v) > 1; v = v[2:] {
					if v[0] == "data" {
						l.Body = v[1]
					} else {
						l.Fields[v[0]] = v[1]
					}
				}
				return l
			}
		},
	})
}
