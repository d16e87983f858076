package canary

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mistakes are documents with something wrong near a secret, each with CANARY in
// the place of it. What is reported must not show it.
func mistakes() map[string]string {
	component := func(items string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: c}\nspec:\n  type: bindings.rabbitmq\n  version: v1\n  metadata:\n" +
			"  - {name: queueName, value: q}\n" + items
	}
	head := func(kind string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: " + kind + "\nmetadata: {name: c}\n"
	}
	return map[string]string{
		"unknown option":          component("  - {name: hots, value: \"amqp://u:CANARY@h/\"}\n"),
		"option twice":            component("  - {name: host, value: \"amqp://u:CANARY@h/\"}\n  - {name: host, value: \"amqp://u:CANARY@h/\"}\n"),
		"no address":              component("  - {name: host, value: \"CANARY\"}\n"),
		"wrong address":           component("  - {name: host, value: \"amqp//u:CANARY@h:x/%zz\"}\n"),
		"unknown field of item":   component("  - {name: host, valeu: \"amqp://u:CANARY@h/\"}\n"),
		"item without name":       component("  - {nmae: host, value: \"amqp://u:CANARY@h/\"}\n"),
		"item is a text":          component("  - CANARY\n"),
		"item is short":           component("  - host: amqp://u:CANARY@h/\n"),
		"value is a list":         component("  - {name: host, value: [\"amqp://u:CANARY@h/\"]}\n"),
		"value and reference":     component("  - {name: host, value: \"CANARY\", secretKeyRef: {name: s}}\n"),
		"quote without end":       component("  - {name: host, value: \"amqp://u:CANARY@h/}\n"),
		"quote in a block":        component("  - name: host\n    value: \"amqp://u:CANARY@h/\n  - name: x\n    value: y\n"),
		"tab":                     component("  - name: host\n\tvalue: CANARY\n"),
		"colon too many":          component("  - name: host\n    value: password: CANARY\n"),
		"brace without end":       component("  - {name: host, value: CANARY\n"),
		"bad indentation":         component("  - name: host\n   value: CANARY\n"),
		"reserved sign":           component("  - name: host\n    value: @CANARY\n"),
		"key without colon":       component("  - name: host\n    value\n    CANARY\n"),
		"anchor unknown":          component("  - name: host\n    value: *CANARY\n"),
		"metadata is a mapping":   head("Component") + "spec: {type: bindings.rabbitmq, version: v1, metadata: {host: \"amqp://u:CANARY@h/\"}}\n",
		"metadata is a text":      head("Component") + "spec: {type: bindings.rabbitmq, version: v1, metadata: CANARY}\n",
		"secret in a wrong place": head("Component") + "spec: {type: bindings.rabbitmq, version: v1, password: CANARY}\n",
		"unknown type":            head("Component") + "spec: {type: bindings.rabitmq, version: v1, metadata: [{name: host, value: \"CANARY\"}]}\n",
		"required is missing":     head("Component") + "spec: {type: bindings.mqtt3, version: v1, metadata: [{name: url, value: \"tcp://u:CANARY@h\"}, {name: caCert, value: CANARY}]}\n",
		"wrong PEM":               head("Component") + "spec: {type: pubsub.kafka, version: v1, metadata: [{name: brokers, value: h}, {name: authType, value: mtls}, {name: clientCert, value: x}, {name: clientKey, value: CANARY}]}\n",
		"wrong DSN":               head("Component") + "spec: {type: state.postgresql, version: v1, metadata: [{name: connectionString, value: 'host=h password=CANARY port=zz'}]}\n",
		"wrong DSN as URL":        head("Component") + "spec: {type: state.postgresql, version: v1, metadata: [{name: connectionString, value: 'postgres://u:CANARY@h:zz/%zz'}]}\n",
		"wrong DSN of MySQL":      head("Component") + "spec: {type: state.mysql, version: v1, metadata: [{name: url, value: 'u:CANARY@tcp(h:1'}]}\n",
		"wrong URL":               head("Component") + "spec: {type: bindings.http, version: v1, metadata: [{name: url, value: 'ftp://u:CANARY@h/?key=CANARY'}]}\n",
		"wrong URL of GraphQL":    head("Component") + "spec: {type: bindings.graphql, version: v1, metadata: [{name: endpoint, value: 'http://u:CANARY@h:zz/%zz?key=CANARY'}, {name: 'header:Author ization', value: 'CANARY'}]}\n",
		"wrong header":            head("Component") + "spec: {type: bindings.graphql, version: v1, metadata: [{name: endpoint, value: 'http://h'}, {name: 'header:Authorization', value: \"CANARY\\n\"}]}\n",
		"wrong URL of NATS":       head("Component") + "spec: {type: pubsub.jetstream, version: v1, metadata: [{name: natsURL, value: 'nats://u:CANARY@h:zz'}, {name: jwt, value: CANARY}]}\n",
		"wrong URL of MQTT":       head("Component") + "spec: {type: pubsub.mqtt3, version: v1, metadata: [{name: url, value: 'foo://u:CANARY@h:zz'}]}\n",
		"wrong URL of oauth2":     head("Component") + "spec: {type: middleware.http.oauth2clientcredentials, version: v1, metadata: [{name: clientId, value: c}, {name: clientSecret, value: CANARY}, {name: tokenURL, value: 'http//u:CANARY@h'}, {name: endpointParamsQuery, value: 'a=%zz&secret=CANARY'}]}\n",
		"endpoint":                head("HTTPEndpoint") + "spec: {baseUrl: 'ftp://u:CANARY@h/?k=CANARY', headers: [{name: A, valeu: CANARY}]}\n",
		"endpoint's header":       head("HTTPEndpoint") + "spec: {baseUrl: 'http://h', headers: [CANARY, {name: 'a b', value: CANARY}]}\n",
		"tracing":                 head("Configuration") + "spec: {api: {allowed: [{name: nothing, version: v1, protocol: http}]}, tracing: {samplingRate: x, otel: {endpointAddress: 'http://u:CANARY@h:zz', protocol: foo, isSecure: maybe, headers: 'CANARY', headrs: [CANARY]}, zipkin: {endpointAddress: 'foo//u:CANARY@h'}}}\n",
		"name resolution":         head("Configuration") + "spec: {nameResolution: {component: consul, configuration: {client: {token: CANARY, tokne: CANARY, httpAuth: {password: [CANARY], pass: CANARY}}}}}\n",
		"name resolution's type":  head("Configuration") + "spec: {nameResolution: {component: consul, configuration: CANARY}}\n",
		"not YAML":                head("Component") + "spec:\n  type: bindings.rabbitmq\n  password: CANARY\n  - x\n",
		"environment":             head("Configuration") + "spec: {api: {allowed: [{name: \"${CANARY_ENV}\", version: v1, protocol: \"${CANARY_ENV}\"}]}}\n",
	}
}

// TestMistakes: neither check nor a start that is refused shows a secret, be it in
// the line of the file that is wrong.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, text := range mistakes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c canaries
			for strings.Contains(text, "CANARY") && !strings.Contains(text, "CANARY_ENV") {
				text = strings.Replace(text, "CANARY", c.plant("%s", name), 1)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "resources", "all.yaml"), text)
			configuration := filepath.Join(dir, "resources", "all.yaml")
			if !strings.Contains(text, "kind: Configuration") {
				configuration = filepath.Join(dir, "none.yaml")
				write(t, configuration, "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: none}\nspec: {}\n")
			}
			env := append(os.Environ(), "CANARY_ENV="+c.plant("an environment variable"), "HOME="+dir)
			for _, words := range [][]string{
				{"check", "--config", configuration, filepath.Join(dir, "resources")},
				{
					"serve", "--strict", "--app-id", "a", "--dapr-http-port", "0", "--dapr-grpc-port", "0", "--no-enable-metrics", "--log-level", "debug",
					"--data-dir", dir, "--config", configuration, "--resources-path", filepath.Join(dir, "resources"),
				},
			} {
				cmd := exec.CommandContext(t.Context(), binary, words...)
				cmd.Env = env
				out, err := cmd.CombinedOutput()
				if err == nil {
					t.Errorf("penstock %s finds nothing wrong: this case shows nothing\n%s\n%s", words[0], text, out)
				}
				c.search(t, fmt.Sprintf("the output of penstock %s", words[0]), string(out))
			}
		})
	}
}
