package kubernetes

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
	fake "github.com/penstock-io/penstock/test/fake/kubernetes"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(t *testing.T) map[string]string {
			s := fake.Start(t)
			s.Allow("right", "orders")
			s.Put("orders", "plain", map[string]string{"plain": "x"})
			s.Put("orders", "db.main", map[string]string{"user": "u", "password": "ä \xff"})
			s.Put("other", "hidden", map[string]string{"a": "b"})
			return map[string]string{"apiServer": s.URL, "token": "right", "caCert": s.CA(), "defaultNamespace": "orders"}
		},
		Wrong: map[string]map[string]string{
			"apiServer":        {"apiServer": "10.0.0.1:6443"},
			"tokenPath":        {"tokenPath": "/token"},
			"defaultNamespace": {"defaultNamespace": "a/b"},
			"caCert":           {"caCert": "-----BEGIN CERTIFICATE-----"},
		},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "db.main": {"user": "u", "password": "ä \xff"}},
		Missing: "hidden",
	})
}
