package vault

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
	fake "github.com/penstock-io/penstock/test/fake/vault"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(t *testing.T) map[string]string {
			s := fake.Start(t, false)
			s.Put("secret", "dapr/plain", `{"plain":"x"}`)
			s.Put("secret", "dapr/db/main", `{"user":"u","password":"ä \" /"}`)
			s.Put("secret", "other", `{"a":"b"}`)
			return map[string]string{"vaultAddr": s.URL, "vaultToken": fake.Root}
		},
		Wrong: map[string]map[string]string{
			"vaultAddr":      {"vaultAddr": "vault:8200"},
			"vaultValueType": {"vaultValueType": "list"},
			"vaultToken":     {"vaultTokenMountPath": "/token"},
			"roleID":         {"vaultAuth": "approle"},
			"kubernetesRole": {"vaultAuth": "kubernetes"},
			"enginePath":     {"enginePath": "a/../b"},
			"caPath":         {"caPem": "a.pem", "caPath": "b.pem"},
		},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "db/main": {"user": "u", "password": "ä \" /"}},
		Missing: "nothing",
	})
}
