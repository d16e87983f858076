package env

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: it sets environment variables
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(t *testing.T) map[string]string {
			t.Setenv("PSTEST_CONFORM", "s3cret=\u00e4")
			t.Setenv("DAPR_API_TOKEN", "token")
			t.Setenv("APP_API_TOKEN", "token")
			return map[string]string{}
		},
		Want:    map[string]map[string]string{"PSTEST_CONFORM": {"PSTEST_CONFORM": "s3cret=\u00e4"}},
		Missing: "PSTEST_CONFORM_MISSING",
		Denied:  []string{"DAPR_API_TOKEN", "APP_API_TOKEN"},
	})
}
