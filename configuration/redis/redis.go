// Package redis is the configuration store "configuration.redis": keys of Redis
// whose values are value||version, as Dapr reads them.
//
// It is opened through [Component]. The server must tell of changes for
// subscriptions to work: notify-keyspace-events KA, or at least K with $, g and x.
//
// Promises: one read brings all keys that a request names. Each watch has a
// connection of its own; when it breaks, the watch ends with an error, and whoever
// watches again reads what was missed.
package redis

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// Component is "configuration.redis".
var Component = configuration.Define("redis", component.About{
	Summary: "Configuration in keys of Redis, with the values Dapr reads",
	Ack:     "A change is delivered until the app has taken it, the last of several alone",
	Limits:  "Subscriptions need notify-keyspace-events of the server to have K, $, g and x (KA has all), and one server: a cluster can be read only. Each subscription is a connection. Without keys a request looks at every key of the database; 10000 texts at most",
	Scale:   "Every process reads and hears for itself",
	Dapr:    "Changes that were missed while the connection was broken are delivered when it is there again. A key with an empty value is an item.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: settings
spec:
  type: configuration.redis
  version: v1
  metadata:
    - name: redisHost
      value: localhost:6379
`,
}, open)

type options struct {
	client.Options
	RedeliverInterval component.Ignored `meta:"redeliverInterval" doc:"Belongs to streams."`
	ProcessingTimeout component.Ignored `meta:"processingTimeout" doc:"Belongs to streams."`
	QueueDepth        component.Ignored `meta:"queueDepth"        doc:"Belongs to streams."`
	Concurrency       component.Ignored `meta:"concurrency"       doc:"Belongs to streams."`
}

// Check implements component.Checker.
func (o options) Check() error { return o.Options.Check() }

// versionMark stands between value and version.
const versionMark = "||"

type store struct {
	c       *client.Client
	log     *slog.Logger
	prefix  string // of the channels of keys
	cluster bool
	watches configuration.Watches
	warn    sync.Once
}

func open(ctx context.Context, env component.Env, o options) (configuration.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	return &store{
		c: c, log: env.Logger, cluster: o.RedisType == "cluster",
		prefix: "__keyspace@" + strconv.Itoa(o.RedisDB) + "__:",
	}, nil
}

// Get implements configuration.Driver. Keys that hold something else than a text
// are left out.
func (s *store) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configuration.Item, error) {
	if len(keys) == 0 {
		var err error
		if keys, err = s.all(ctx); err != nil || len(keys) == 0 {
			return nil, err
		}
	}
	const atOnce = 1000
	items := make(map[string]configuration.Item, len(keys))
	for len(keys) > 0 {
		part := keys[:min(len(keys), atOnce)]
		keys = keys[len(part):]
		texts, err := s.c.Texts(ctx, part)
		if err != nil {
			return nil, err
		}
		for key, text := range texts {
			items[key] = itemOf(text)
		}
		if len(items) > configuration.MaxItems {
			return nil, configuration.TooMany()
		}
	}
	return items, nil
}

func itemOf(text string) configuration.Item {
	value, version, _ := strings.Cut(text, versionMark)
	version, _, _ = strings.Cut(version, versionMark)
	return configuration.Item{Value: value, Version: version}
}

// maxScanned bounds the keys of a database that is read whole: those that are no
// texts are among them.
const maxScanned = 10 * configuration.MaxItems

// all lists the keys of the database.
func (s *store) all(ctx context.Context) ([]string, error) {
	seen := map[string]struct{}{}
	var keys []string
	for cursor := uint64(0); ; {
		page, err := s.c.Do(ctx, s.c.B().Scan().Cursor(cursor).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return nil, client.Classify(err)
		}
		for _, key := range page.Elements {
			if _, again := seen[key]; !again {
				seen[key] = struct{}{}
				keys = append(keys, key)
			}
		}
		if len(keys) > maxScanned {
			return nil, configuration.TooMany()
		}
		if cursor = page.Cursor; cursor == 0 {
			return keys, nil
		}
	}
}

// Watch implements configuration.Driver.
func (s *store) Watch(ctx context.Context, w configuration.Watch) error {
	if s.cluster {
		return fault.New(fault.Invalid, "watch keys: each node of a cluster tells of its own keys only; use a server that is none")
	}
	ctx, done, err := s.watches.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.warn.Do(func() { s.lookAtServer(ctx) })
	channels, pattern := s.channels(w.Keys)
	return s.c.Listen(ctx, client.Listener{
		Channels: channels, Patterns: pattern, Up: w.Up,
		Published: func(channel string) {
			if key, ok := strings.CutPrefix(channel, s.prefix); ok {
				w.Changed(key)
			}
		},
	})
}

// channels are where the server tells of keys: each once, or one pattern for all.
func (s *store) channels(keys []string) (_ []string, pattern bool) {
	if len(keys) == 0 {
		return []string{s.prefix + "*"}, true
	}
	out := make([]string, 0, len(keys))
	for _, key := range keys {
		if channel := s.prefix + key; !slices.Contains(out, channel) {
			out = append(out, channel)
		}
	}
	return out, false
}

// lookAtServer says when the server will not tell of changes, which is its
// default. A server that does not let itself be asked is believed.
func (s *store) lookAtServer(ctx context.Context) {
	const setting = "notify-keyspace-events"
	all, err := s.c.Do(ctx, s.c.B().ConfigGet().Parameter(setting).Build()).AsStrMap()
	flags, known := all[setting]
	if err != nil || !known {
		return
	}
	if !strings.Contains(flags, "K") || !strings.Contains(flags, "A") && !strings.Contains(flags, "$") {
		s.log.Warn("The server does not tell of changes, so subscriptions stay silent; set its notify-keyspace-events to KA", "setting", flags)
	}
}

// Close implements configuration.Driver.
func (s *store) Close(context.Context) error {
	s.watches.End()
	return s.c.Close()
}
