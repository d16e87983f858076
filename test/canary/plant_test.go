package canary

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// forms are the options that must have a form, and those whose values hold a
// secret without being one: of a type, or of all types of that name. CANARY is
// another canary each time.
func forms() map[string]map[string]string {
	const (
		plain    = "http://127.0.0.1:1/path?code=CANARY"
		web      = "http://user:CANARY@127.0.0.1:1/path?code=CANARY"
		postgres = "host=127.0.0.1 port=1 user=u password=CANARY dbname=d connect_timeout=1"
		mysql    = "user:CANARY@tcp(127.0.0.1:1)/db"
		mqtt     = "tcp://user:CANARY@127.0.0.1:1"
		amqp     = "amqp://user:CANARY@127.0.0.1:1/"
		nats     = "nats://user:CANARY@127.0.0.1:1"
	)
	return map[string]map[string]string{
		"*": {
			"endpoint": web, "queueEndpoint": web, "natsURL": nats, "redisHost": "127.0.0.1:1", "brokers": "127.0.0.1:1", "hosts": "127.0.0.1:1",
			"endpoints": "127.0.0.1:1", "servers": "127.0.0.1:1", "topic": "t", "table": "t", "bucket": "b", "consumerID": "c", "username": "u",
			"tokenURL": plain, "authURL": plain, "issuer": "http://127.0.0.1:1/", "jwksURL": web, "vaultAddr": "http://127.0.0.1:1",
			"redisUsername": "u", "region": "us-east-1", "rootPath": "DIR/root",
		},
		"bindings.cron": {"schedule": "@every 1h"},
		"bindings.exec": {"commands": "ls"},
		"bindings.file": {"path": "DIR/inbox"},
		"bindings.graphql": {
			"header:Authorization": "Bearer CANARY", "header:X-Api-Key": "CANARY", "header:Cookie": "id=CANARY",
		},
		"bindings.http":     {"url": web, "securityTokenHeader": "X-Token"},
		"bindings.mqtt3":    {"url": mqtt},
		"bindings.mysql":    {"url": mysql},
		"bindings.nats":     {"subject": "s"},
		"bindings.postgres": {"connectionString": postgres},
		"bindings.rabbitmq": {"host": amqp},
		"bindings.redis":    {"redisHost": "127.0.0.1:1"},
		"bindings.sftp":     {"address": "127.0.0.1:1", "rootPath": "/in", "insecureIgnoreHostKey": "true", "privateKey": "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n-----END OPENSSH PRIVATE KEY-----\n"},
		"bindings.smtp":     {"host": "127.0.0.1", "port": "1", "user": "u", "emailFrom": "a@b.example", "emailTo": "c@d.example"},
		"bindings.sqlite":   {"connectionString": "DIR/binding.db"},
		"bindings.webhook":  {"url": plain, "path": "/hook", "signature": "hmac", "listen": "127.0.0.1:0", "connectionString": "DIR/webhook.db"},
		"bindings.aws.sns":  {"topicArn": "arn:aws:sns:us-east-1:1:t"}, "bindings.aws.s3": {"queueName": "q"},

		"pubsub.mqtt3": {"url": mqtt}, "pubsub.mqtt5": {"url": mqtt}, "pubsub.postgres": {"connectionString": postgres},
		"pubsub.rabbitmq": {"connectionString": amqp}, "pubsub.sqlite": {"connectionString": "DIR/bus.db"},

		"state.mysql": {"url": mysql}, "state.postgresql": {"connectionString": postgres}, "state.sqlite": {"connectionString": "DIR/state.db"},
		"state.azure.blobstorage":  {"accountName": "a", "endpoint": "http://127.0.0.1:1/a", "containerName": "ccc", "connectionString": "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=CANARY;BlobEndpoint=http://127.0.0.1:1/a"},
		"state.azure.tablestorage": {"accountName": "a", "serviceURL": "http://127.0.0.1:1/a", "tableName": "ttt"},
		"state.mongodb":            {"host": "127.0.0.1:1", "username": "u", "connectionString": "mongodb://u:CANARY@127.0.0.1:1/db"},

		"configuration.postgresql": {"connectionString": postgres}, "configuration.file": {"path": "DIR/settings.yaml"},
		"lock.postgresql": {"connectionString": postgres}, "lock.sqlite": {"connectionString": "DIR/lock.db"},
		"secretstores.local.env":      {"prefix": "NONE_"},
		"secretstores.local.file":     {"secretsFile": "DIR/secrets.json"},
		"crypto.dapr.localstorage":    {"path": "DIR/keys"},
		"crypto.dapr.jwks":            {"jwks": "http://user:CANARY@127.0.0.1:1/keys?code=CANARY"},
		"middleware.http.bearer":      {"issuer": web},
		"middleware.http.wasm":        {"url": plain},
		"nameresolution.file":         {"path": "DIR/apps.yaml"},
		"nameresolution.nameformat":   {"format": "127.0.0.1"},
		"nameresolution.sqlite":       {"connectionString": "DIR/names.db"},
		"middleware.http.routeralias": {"/a": "/b"},
	}
}

// together are options that a secret needs beside it.
func together() map[string]map[string]string {
	return map[string]map[string]string{
		"accessKey": {"secretKey": "CANARY"}, "jwt": {"seedKey": "CANARY"}, "clientKey": {"clientCert": "DIR/none.pem"},
		"MTLSClientKey": {"MTLSClientCert": "DIR/none.pem"}, "tls_client_key": {"tls_client_cert": "DIR/none.pem"}, "connectionString": {"host": ""},
	}
}

// form of an option of a type; empty when it has none.
func form(typ, option string) string {
	all := forms()
	if v, ok := all[typ][option]; ok {
		return v
	}
	return all["*"][option]
}

// planted is a component with canaries in it.
type planted struct {
	def   component.Definition
	name  string
	items []config.Item
	wrong config.Problems // the document is refused
}

// plantAll makes one or more components of each type of the build, which have all
// secret options between them.
func plantAll(c *canaries, dir string) (list []planted) {
	for _, def := range all.Components() {
		if strings.HasPrefix(def.Type, "nameresolution.") {
			continue // there is one of them in an instance
		}
		rest := secretsOf(def)
		for n := 0; n == 0 || len(rest) > 0; n++ {
			p := planted{def: def, name: fmt.Sprintf("%s-%d", strings.ReplaceAll(def.Type, ".", "-"), n)}
			p.items = needed(c, def, p.name, dir)
			rest = p.add(c, rest, n > 0, dir)
			list = append(list, p)
		}
	}
	return list
}

// secretsOf are the names of the options that are secrets.
func secretsOf(def component.Definition) (names []string) {
	for _, o := range slices.Concat(def.Options, def.Common) {
		if o.Type == "secret" {
			names = append(names, o.Name)
		}
	}
	return names
}

// needed are the items that a component cannot do without, and those that have a
// form and are no secrets.
func needed(c *canaries, def component.Definition, name, dir string) (items []config.Item) {
	given := map[string]bool{}
	for _, o := range slices.Concat(def.Options, def.Common) {
		given[o.Name] = true
		v := form(def.Type, o.Name)
		switch {
		case o.Type == "secret" && !o.Required, v == "" && !o.Required:
			continue
		case v == "" && o.Type == "secret":
			v = "CANARY"
		case v == "":
			v = o.Example
		}
		items = append(items, filled(c, name, o.Name, v, dir))
	}
	for option, v := range forms()[def.Type] {
		if !given[option] {
			items = append(items, filled(c, name, option, v, dir))
		}
	}
	return items
}

// filled makes an item with canaries in it.
func filled(c *canaries, name, option, form, dir string) config.Item {
	for strings.Contains(form, "CANARY") {
		form = strings.Replace(form, "CANARY", c.plant("%s: %s", name, option), 1)
	}
	return config.Item{Name: option, Value: strings.ReplaceAll(form, "DIR", dir)}
}

// add plants as many of the secrets as the component takes together, and returns
// the rest. One that is refused by itself is planted all the same, in a document
// that has no other.
func (p *planted) add(c *canaries, names []string, alone bool, dir string) (rest []string) {
	added := 0
	for _, name := range names {
		if p.has(name) {
			continue
		}
		if with := p.with(c, name, dir); refused(p.def, with) == nil {
			p.items = with
			added++
			continue
		}
		rest = append(rest, name)
	}
	if alone && added == 0 && len(rest) > 0 {
		p.items = p.with(c, rest[0], dir)
		rest = rest[1:]
	}
	p.wrong = refused(p.def, p.items)
	return rest
}

func (p *planted) has(option string) bool {
	return slices.ContainsFunc(p.items, func(it config.Item) bool { return it.Name == option })
}

// with returns the items and a secret, with what it needs beside it.
func (p *planted) with(c *canaries, name, dir string) []config.Item {
	items := slices.Clone(p.items)
	all := map[string]string{name: cmp.Or(form(p.def.Type, name), "CANARY")}
	maps.Copy(all, together()[name])
	for option, v := range all {
		if v == "" { // instead of it
			items = slices.DeleteFunc(items, func(it config.Item) bool { return it.Name == option })
		} else if !p.has(option) {
			items = append(items, filled(c, p.name, option, v, dir))
		}
	}
	return items
}

// refused are the errors of a document.
func refused(def component.Definition, items []config.Item) config.Problems {
	errs, _ := def.Check(items).Split(false)
	return errs
}

// way is how a component gets its secrets.
type way int

const (
	inline way = iota
	fromStore
	fromEnv
)

// document writes the component. Secrets that are not inline are put into the
// store's file or the environment.
func (p *planted) document(w way, store, env map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\n", p.name)
	if w == fromStore {
		b.WriteString("auth: {secretStore: vault}\n")
	}
	fmt.Fprintf(&b, "spec:\n  type: %s\n  version: %s\n  ignoreErrors: true\n  initTimeout: 1s\n  metadata:\n", p.def.Type, p.def.Versions[0])
	for _, it := range p.items {
		key := strings.ToUpper(strings.NewReplacer("-", "_", ".", "_", ":", "_").Replace(p.name + "_" + it.Name))
		switch hidden := strings.Contains(it.Value, mark); {
		case hidden && w == fromStore:
			store[key] = it.Value
			fmt.Fprintf(&b, "  - {name: %q, secretKeyRef: {name: %s}}\n", it.Name, key)
		case hidden && w == fromEnv:
			env[key] = it.Value
			fmt.Fprintf(&b, "  - {name: %q, envRef: %s}\n", it.Name, key)
		default:
			fmt.Fprintf(&b, "  - {name: %q, value: %q}\n", it.Name, it.Value)
		}
	}
	b.WriteString("---\n")
	return b.String()
}

// TestEverySecretIsPlanted: a component whose document is refused is one that
// nobody opens, so each secret option is in one that is not, save for those here.
func TestEverySecretIsPlanted(t *testing.T) {
	t.Parallel()
	var c canaries
	opened := map[string]bool{}
	real := map[string]bool{"bindings.sftp privateKey": true} // only a key that is one is taken
	list := plantAll(&c, t.TempDir())
	for _, p := range list {
		if p.wrong != nil {
			c.search(t, "what is said of "+p.name, p.wrong.Error())
			continue
		}
		for _, it := range p.items {
			opened[p.def.Type+" "+it.Name] = true
		}
	}
	for _, p := range list {
		for _, name := range secretsOf(p.def) {
			if key := p.def.Type + " " + name; !opened[key] && !real[key] {
				opened[key] = true
				t.Errorf("no component of type %s that can be opened has the option %s: give forms a line for what it needs", p.def.Type, name)
			}
		}
	}
	t.Logf("%d components with %d canaries", len(list), c.count())
}
