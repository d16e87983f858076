package middleware

import (
	"net/url"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		expr, path string
		want       bool
	}{
		{"", "/anything", true},
		{".*/users/.*", "/v1.0/invoke/a/method/users/7", true},
		{".*/users/.*", "/v1.0/invoke/a/method/orders/7", false},
		{".*/users/.*", "/v1.0/invoke/a/method/%75sers/7", true},
		{".*/users/.*", "/v1.0/invoke/a/method%2Fusers%2F7", true},
		{".*/users/.*", "/v1.0/invoke/a/method/users//7", true},
		{"/method/users", "/v1.0/invoke/a/method//users", true},
		{"/method/users", "/v1.0/invoke/a/method/x/../users", true},
		{"/method/users", "/v1.0/invoke/a/method/./%75sers", true},
		{"^/admin$", "/admin/", true},
		{"^/admin$", "/admin2", false},
		{"/users", "/%zz", true}, // nobody knows what that is
	} {
		f, err := NewFilter("pathFilter", row.expr)
		if err != nil {
			t.Fatal(err)
		}
		u := &url.URL{Path: row.path, RawPath: row.path}
		if got := f.Matches(u); got != row.want {
			t.Errorf("%q matches %s: %v, want %v", row.expr, row.path, got, row.want)
		}
	}
	if _, err := NewFilter("pathFilter", "("); err == nil || !strings.Contains(err.Error(), `"pathFilter"`) {
		t.Errorf("a wrong expression: %v", err)
	}
}
