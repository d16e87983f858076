package contract

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a Configuration takes away is gone, and back when the file says so,
// without a restart; calls are logged in Dapr's words as it says.
func TestAPIRules(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	sc := start(t, setup{resources: buses, config: head +
		"  api: {denied: [{name: publish, version: v1.0, protocol: http}]}\n" +
		"  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}\n"})
	checkProblem(t, send(t, request{url: sc.api + "/publish/mem/secret-topic"}), 404, "ERR_API_DENIED", "")
	sc.logged(t, regexp.MustCompile(`level=info msg="HTTP API Called" .*method="POST /v1.0/publish/\{bus\}/\*"`))
	if log := sc.log.String(); strings.Contains(log, "secret-topic") || strings.Contains(log, "GET /v1.0/healthz") {
		t.Errorf("the log says too much:\n%s", log)
	}
	write(t, filepath.Join(sc.dir, "config.yaml"), head+
		"  api: {allowed: [{name: publish, version: v1.0, protocol: http}]}\n  logging: {apiLogging: {enabled: true}}\n")
	eventually(t, "the new Configuration is in use", func() bool {
		return send(t, request{url: sc.api + "/publish/mem/plain-topic"}).status == 204
	})
	checkProblem(t, get(t, sc.api+"/metadata"), 404, "ERR_API_DENIED", "")
	if r := get(t, sc.api+"/healthz"); r.status != 204 {
		t.Errorf("health: %d", r.status)
	}
	sc.logged(t, regexp.MustCompile(`method="POST /v1.0/publish/mem/plain-topic"`))
	sc.logged(t, regexp.MustCompile(`method="GET /v1.0/healthz"`))
}

// The flag wins over the Configuration, in both directions.
func TestAPILoggingFlag(t *testing.T) {
	t.Parallel()
	const off = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {logging: {apiLogging: {enabled: false}}}\n"
	for _, row := range []struct {
		flag   string
		config string
		logged bool
	}{
		{"--enable-api-logging", off, true},
		{"--enable-api-logging=false", strings.ReplaceAll(off, "false", "true"), false},
	} {
		t.Run(row.flag, func(t *testing.T) {
			t.Parallel()
			sc := start(t, setup{resources: buses, config: row.config, flags: []string{row.flag}})
			if got := strings.Contains(sc.log.String(), "HTTP API Called"); got != row.logged {
				t.Errorf("logged: %v, want %v", got, row.logged)
			}
		})
	}
}
