package house

import (
	"strings"
	"testing"
)

// floors of the folders, as in docs/design.md. A folder below one of these
// stands on its floor unless it is named itself.
var floors = map[string]int{
	"fault":  0,
	"config": 1, "cloudevents": 1, "telemetry": 1, "instances": 1,
	"invoke/message": 1, "invoke/identity": 2, "invoke/access": 3,
	"component": 2, "resilience": 2, "client/batch": 2, "client/tls": 2, "client/http": 2,
	"invoke/proxy": 2,
	"crypto/enc":   1, "crypto/keys": 2,
	"bindings": 3, "pubsub": 3, "state": 3, "secrets": 3, "crypto": 3, "client": 3,
	"lock": 3, "configuration": 3, "invoke/names": 3, "middleware": 3,
	"all": 4, "pluggable": 4,
	"router": 5, "app": 5, "invoke": 5, "deadletters": 5,
	"api": 6, "console": 6,
	"runtime": 7,
	"cmd":     8,
	"test":    9, "examples": 9,
}

// implementations are contract folders whose sub-folders stand one floor up.
var implementations = map[string]bool{
	"bindings": true, "pubsub": true, "state": true, "secrets": true,
	"crypto": true, "lock": true, "configuration": true, "invoke/names": true, "middleware": true,
}

func floor(folder string) (int, bool) {
	if n, ok := floors[folder]; ok {
		return n, true
	}
	for contract := range implementations {
		if strings.HasPrefix(folder, contract+"/") {
			return 4, true
		}
	}
	top, _, _ := strings.Cut(folder, "/")
	n, ok := floors[top]
	return n, ok
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		from, ok := floor(f.folder)
		if !ok {
			t.Errorf("%s: folder %q is not in the floor plan; add it to floors here and to docs/design.md", f.path, f.folder)
			continue
		}
		if f.test {
			continue
		}
		for _, imp := range f.imports() {
			if to, ok := floor(imp); ok && !allowed(f.folder, imp, from, to) {
				t.Errorf("%s (floor %d) imports %s (floor %d): a folder imports only lower floors; move the shared piece down or hand it in as a value", f.path, from, imp, to)
			}
		}
	}
}

// allowed tells whether a folder may import another: a lower floor, or its own
// parent. Components are imported by package all alone.
func allowed(folder, imp string, from, to int) bool {
	if strings.HasPrefix(folder, imp+"/") {
		return true
	}
	if to == 4 && imp != "all" {
		return folder == "all"
	}
	return to < from
}

// only says who may import what from outside, so that a library can be
// replaced in one place.
var only = map[string][]string{
	"github.com/ThreeDotsLabs/watermill":  {"router", "pubsub", "test"},
	"github.com/goccy/go-yaml":            {"config"},
	"modernc.org/sqlite":                  {"client/sqlite"},
	"cel.dev/cel-go":                      {"cloudevents/expr"},
	"github.com/itchyny/gojq":             {"cloudevents/expr"},
	"github.com/robfig/cron":              {"bindings/cron"},
	"github.com/sony/gobreaker":           {"resilience"},
	"github.com/alecthomas/kong":          {"cmd"},
	"github.com/go-chi/chi":               {"api/http"},
	"github.com/fsnotify/fsnotify":        {"config", "bindings/file"},
	"github.com/cloudevents/sdk-go":       {"cloudevents", "bindings/webhook", "test"},
	"github.com/lmittmann/tint":           {"cmd", "telemetry"},
	"github.com/rogpeppe/go-internal":     {"test", "cmd"},
	"go.opentelemetry.io/otel":            {"telemetry"},
	"go.opentelemetry.io/proto":           {"test"},
	"github.com/dapr/dapr/pkg/proto":      {"api/grpc", "app/grpc", "invoke/peer", "invoke/identity/sentry", "pluggable", "examples/pluggable", "test/bench"},
	"github.com/spiffe/go-spiffe":         {"invoke/identity/workload"},
	"github.com/prometheus/client_golang": {"telemetry"},
	"github.com/prometheus/client_model":  {"telemetry"},
	"github.com/prometheus/common":        {"telemetry"},
	"github.com/segmentio/kafka-go":       {"client/kafka", "pubsub/kafka", "bindings/kafka", "test"},
	"github.com/rabbitmq/amqp091-go":      {"client/rabbitmq", "pubsub/rabbitmq", "bindings/rabbitmq", "test"},
	"github.com/redis/rueidis":            {"client/redis", "pubsub/redis", "bindings/redis", "state/redis", "test"},
	"github.com/nats-io/nats.go":          {"client/nats", "pubsub/jetstream", "bindings/nats", "state/jetstream", "test"},
	"github.com/eclipse":                  {"client/mqtt", "test"},
	"github.com/aws":                      {"client/aws", "pubsub/snssqs", "bindings/aws", "state/aws", "test"},
	"github.com/jackc/pgx":                {"client/postgres", "pubsub/postgres", "bindings/postgres", "state/postgres", "lock/postgres", "configuration/postgres", "test"},
	"github.com/go-sql-driver/mysql":      {"client/mysql", "bindings/mysql", "state/mysql", "test"},
	"github.com/wneessen/go-mail":         {"bindings/smtp"},
	"github.com/pkg/sftp":                 {"client/sftp", "bindings/sftp", "test"},
	"github.com/go-jose/go-jose":          {"crypto/keys", "middleware/bearer"},
	"golang.org/x/oauth2":                 {"client/oauth2", "middleware/oauth2", "middleware/oauth2clientcredentials"},
	"github.com/tetratelabs/wazero":       {"middleware/wasm"},
	"go.etcd.io/etcd":                     {"client/etcd", "state/etcd", "lock/etcd", "configuration/etcd", "test"},
	"github.com/bradfitz/gomemcache":      {"state/memcached"},
	"github.com/go-zookeeper/zk":          {"state/zookeeper"},
	"go.mongodb.org/mongo-driver":         {"state/mongodb"},
	"github.com/apache":                   {"state/cassandra"},
}

func TestLibrariesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		for _, s := range f.ast.Imports {
			path := strings.Trim(s.Path.Value, `"`)
			for lib, homes := range only {
				if (path == lib || strings.HasPrefix(path, lib+"/")) && !anyPrefix(f.folder, homes) {
					t.Errorf("%s imports %s, which only %s may: use what that folder offers", f.path, path, strings.Join(homes, ", "))
				}
			}
		}
	}
}

func anyPrefix(folder string, homes []string) bool {
	for _, h := range homes {
		if folder == h || strings.HasPrefix(folder, h+"/") {
			return true
		}
	}
	return false
}
