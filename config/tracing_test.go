package config

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTracing(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"c.yaml": `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  tracing:
    samplingRate: "0.25"
    stdout: true
    zipkin: {endpointAddress: "http://localhost:9411/api/v2/spans"}
    otel:
      endpointAddress: "otel:4317"
      isSecure: false
      protocol: GRPC
      timeout: 3s
      headers:
        - {name: authorization, value: "Bearer ${TOKEN}"}
        - team=a=b
`})
	set, problems := Load(Options{Configs: []string{filepath.Join(folder, "c.yaml")}, Env: env("TOKEN", "t1")})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Tracing{
		Rate: new(0.25), Stdout: true, Zipkin: "http://localhost:9411/api/v2/spans",
		OTLP: OTLP{
			Endpoint: "otel:4317", Protocol: "grpc", Insecure: true, Timeout: 3 * time.Second,
			Headers: []TracingHeader{{"authorization", "Bearer t1"}, {"team", "a=b"}},
		},
	}
	if diff := cmp.Diff(want, set.Configuration.Tracing, anywhere); diff != "" {
		t.Error(diff)
	}
}
