package main

import (
	"log/slog"
	"testing"
)

func TestAppProtocol(t *testing.T) {
	t.Parallel()
	for given, want := range map[[2]string]string{
		{"http", ""}: "http", {"http", "ssl"}: "https", {"GRPC", ""}: "grpc", {"grpc", "ssl"}: "grpcs",
		{"grpcs", "ssl"}: "grpcs", {"h2c", "ssl"}: "h2c", {"smtp", ""}: "",
	} {
		f := &serveFlags{AppProtocol: given[0], AppSSL: given[1] != "", MaxBodySize: "4Mi", ReadBufferSize: "4Ki"}
		o, err := f.options(slog.New(slog.DiscardHandler))
		if want == "" {
			if err == nil {
				t.Errorf("%v is taken", given)
			}
			continue
		}
		if err != nil || o.App.Protocol != want {
			t.Errorf("%v: %q, %v; want %q", given, o.App.Protocol, err, want)
		}
	}
}
