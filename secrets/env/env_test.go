package env

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// The tests set environment variables and so do not run in parallel.

func TestGet(t *testing.T) {
	t.Setenv("PSTEST_password", "s3cret")
	t.Setenv("PSTEST_empty", "")
	t.Setenv("APP_API_TOKEN", "token")
	t.Setenv("DAPR_API_TOKEN", "token")
	t.Setenv("PENSTOCK_ADDRESS", "here")
	rows := []struct {
		name, prefix, key, want string
		kind                    fault.Kind
		ok                      bool
	}{
		{name: "plain", key: "PSTEST_password", want: "s3cret", ok: true},
		{name: "prefix is put in front", prefix: "PSTEST_", key: "password", want: "s3cret", ok: true},
		{name: "set and empty", key: "PSTEST_empty", ok: true},
		{name: "missing", key: "PSTEST_missing", kind: fault.NotFound},
		{name: "prefix narrows", prefix: "PSTEST_", key: "PSTEST_password", kind: fault.NotFound},
		{name: "app token", key: "APP_API_TOKEN", kind: fault.Denied},
		{name: "app token behind a prefix", prefix: "APP_", key: "API_TOKEN", kind: fault.Denied},
		{name: "app token in other letters", key: "app_api_token", kind: fault.Denied},
		{name: "dapr token", key: "DAPR_API_TOKEN", kind: fault.Denied},
		{name: "dapr token behind a prefix", prefix: "DAPR_", key: "API_TOKEN", kind: fault.Denied},
		{name: "our own settings", key: "PENSTOCK_ADDRESS", kind: fault.Denied},
		{name: "empty key", key: "", kind: fault.Invalid},
		{name: "equals sign", key: "A=B", kind: fault.Invalid},
		{name: "zero byte", key: "A\x00B", kind: fault.Invalid},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, err := open(t.Context(), component.Env{}, options{Prefix: row.prefix})
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Get(t.Context(), row.key, nil)
			if !row.ok {
				if err == nil || fault.KindOf(err) != row.kind {
					t.Fatalf("Get = %v, %v; want an error of kind %v", got, err, row.kind)
				}
				return
			}
			if diff := cmp.Diff(map[string]string{row.key: row.want}, got); err != nil || diff != "" {
				t.Fatalf("error %v, (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestBulk(t *testing.T) {
	t.Setenv("PSTEST_a", "1")
	t.Setenv("PSTEST_b", "x=y")
	t.Setenv("PSTEST_", "the prefix itself has no name left")
	t.Setenv("DAPR_API_TOKEN", "token")
	t.Setenv("APP_API_TOKEN", "token")
	s, _ := open(t.Context(), component.Env{}, options{Prefix: "PSTEST_"})
	got, err := s.Bulk(t.Context(), nil)
	want := map[string]map[string]string{"a": {"a": "1"}, "b": {"b": "x=y"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("error %v, (-want +got)\n%s", err, diff)
	}
	all, _ := open(t.Context(), component.Env{}, options{})
	got, err = all.Bulk(t.Context(), nil)
	if err != nil || got["DAPR_API_TOKEN"] != nil || got["APP_API_TOKEN"] != nil || got["PSTEST_a"] == nil {
		t.Fatalf("Bulk without a prefix gives out a token or misses a variable (error %v)", err)
	}
}
