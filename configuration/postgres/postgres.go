// Package postgres is the configuration store "configuration.postgresql": rows of
// a PostgreSQL table that somebody else keeps, in Dapr's layout.
//
// It is opened through [Component]. The table has the columns key, value, version
// and metadata. A trigger of the table's owner tells of changes with pg_notify, on
// a channel that a subscription names in its metadata (pgNotifyChannel) or the
// option notifyChannel names for all; docs/configuration-api.md has one.
//
// Promises: one query brings all items that a request names. Each watch has a
// connection of its own; when it breaks, the watch ends with an error, and whoever
// watches again reads what was missed.
package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

// Component is "configuration.postgresql".
var Component = configuration.Define("postgresql", component.About{
	Summary: "Configuration in a PostgreSQL table, in Dapr's layout",
	Ack:     "A change is delivered until the app has taken it, the last of several alone",
	Limits:  "The table and its trigger are not made. maxConns connections, and one more for each subscription",
	Scale:   "Every process reads and hears for itself",
	Dapr: "Same table and notifications. Changes that were missed while the connection was broken are delivered when it is there again, and what is delivered is the row as it is, not as the notification had it: " +
		"one that has only the key will do. notifyChannel spares each subscription from naming a channel. Keys may have any characters",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: settings
spec:
  type: configuration.postgresql
  version: v1
  metadata:
    - name: connectionString
      value: postgres://app@localhost:5432/app
    - name: table
      value: configtable
    - name: notifyChannel
      value: config
`,
	Also: []string{"configuration.postgres"},
}, open)

type options struct {
	client.Options
	Table         string            `meta:"table,required" doc:"Table of the items; a schema may stand before it." example:"configtable"`
	NotifyChannel string            `meta:"notifyChannel" doc:"Channel on which the table's trigger tells of changes, for subscriptions that name none in their metadata (pgNotifyChannel)." example:"config"`
	TableName     component.Ignored `meta:"tableName" doc:"Belongs to the state store."`
	MetadataTable component.Ignored `meta:"metadataTableName" doc:"Belongs to the state store."`
	Cleanup       component.Ignored `meta:"cleanupIntervalInSeconds" doc:"Belongs to the state store."`
	UseAzureAD    bool              `meta:"useAzureAD" default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`
	UseAWSIAM     bool              `meta:"useAWSIAM" default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if !goodTable(o.Table) {
		errs = append(errs, component.OptionErrorf("table", "must be a name of at most 63 letters, digits and underscores, perhaps with a schema before it"))
	}
	if o.NotifyChannel != "" {
		if _, err := channels(o.NotifyChannel); err != nil {
			errs = append(errs, component.OptionErrorf("notifyChannel", "%w", err))
		}
	}
	if o.UseAzureAD {
		errs = append(errs, component.OptionErrorf("useAzureAD", "is not supported; use a password"))
	}
	if o.UseAWSIAM {
		errs = append(errs, component.OptionErrorf("useAWSIAM", "is not supported; use a password"))
	}
	return errors.Join(errs...)
}

// goodTable tells whether a name may stand in statements as it is: the server takes
// capital letters for small ones, as under Dapr. The form is compiled when it is
// asked for: its bounds make it large.
func goodTable(name string) bool {
	return regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$`).MatchString(name)
}

const (
	// channelWord is what the metadata of a request calls the channel.
	channelWord = "pgNotifyChannel"
	// maxChannel is the longest name of a channel, in bytes.
	maxChannel = 63
)

// channels are what to listen to for a name: Dapr's LISTEN takes capital letters
// for small ones, and pg_notify does not.
func channels(name string) ([]string, error) {
	if len(name) > maxChannel || strings.ContainsRune(name, 0) {
		return nil, fault.New(fault.Invalid, "the name of a channel has %d bytes at most", maxChannel)
	}
	if lower := strings.ToLower(name); lower != name {
		return []string{name, lower}, nil
	}
	return []string{name}, nil
}

type store struct {
	db      *client.DB
	log     *slog.Logger
	sql     string // all items
	channel string // of subscriptions that name none
	timeout time.Duration
	watches configuration.Watches
}

func open(ctx context.Context, env component.Env, o options) (configuration.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	s := &store{
		db: db, log: env.Logger, channel: o.NotifyChannel, timeout: o.Timeout,
		sql: `SELECT key::text, value::text, version::text, metadata::text FROM ` + o.Table,
	}
	if err := s.look(ctx); err != nil {
		_ = db.Close() // the first error says more
		return nil, fault.Wrap(err, "look at table %s", o.Table)
	}
	return s, nil
}

// look fails when the table or a column of it is missing.
func (s *store) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.db.Pool().Exec(ctx, s.sql+" LIMIT 0")
	return client.Classify(err)
}

// Get implements configuration.Driver.
func (s *store) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configuration.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	sql, args := s.sql+" LIMIT $1", []any{configuration.MaxItems + 1}
	if len(keys) > 0 {
		sql, args = s.sql+" WHERE key = ANY($1)", []any{keys}
	}
	rows, err := s.db.Pool().Query(ctx, sql, args...)
	if err != nil {
		return nil, client.Classify(err)
	}
	items := make(map[string]configuration.Item, len(keys))
	var key, value, version, metadata *string
	_, err = pgx.ForEachRow(rows, []any{&key, &value, &version, &metadata}, func() error {
		if key != nil {
			items[*key] = configuration.Item{Value: text(value), Version: text(version), Metadata: s.metadata(*key, metadata)}
		}
		return nil
	})
	return items, client.Classify(err)
}

func text(column *string) string {
	if column == nil {
		return ""
	}
	return *column
}

// metadata reads the column of that name: an object, whose members that are no
// texts are handed on as they are written. What is none is left out.
func (s *store) metadata(key string, column *string) map[string]string {
	if column == nil {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(*column), &members); err != nil {
		s.log.Debug("The metadata of an item is no JSON object and left out", "key", key)
		return nil
	}
	out := make(map[string]string, len(members))
	for name, raw := range members {
		var v string
		if json.Unmarshal(raw, &v) != nil {
			v = string(raw)
		}
		out[name] = v
	}
	return out
}

// Watch implements configuration.Driver.
func (s *store) Watch(ctx context.Context, w configuration.Watch) error {
	channels, err := s.listenTo(w.Metadata)
	if err != nil {
		return err
	}
	ctx, done, err := s.watches.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var broken error
	s.db.Listen(ctx, client.Listener{
		Channels: channels, Up: w.Up,
		Down: func(err error) { broken = err; cancel(err) },
		Notified: func(_, payload string) {
			if key, ok := keyOf(payload); ok {
				w.Changed(key)
			} else {
				w.Up() // something changed, and all is read
			}
		},
	})
	return broken
}

// listenTo is the channel that the request names, or else the component.
func (s *store) listenTo(metadata map[string]string) ([]string, error) {
	name := s.channel
	for k, v := range metadata {
		if strings.EqualFold(k, channelWord) && v != "" {
			name = v
		}
	}
	if name == "" {
		return nil, fault.New(fault.Invalid, "watch rows: the request names no channel in the metadata %s, and the component has no notifyChannel", channelWord)
	}
	return channels(name)
}

// keyOf finds the key in what a trigger sent: {"data": {"key": ...}}.
func keyOf(payload string) (string, bool) {
	var p struct {
		Data struct {
			Key *string `json:"key"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(payload), &p); err != nil || p.Data.Key == nil {
		return "", false
	}
	return *p.Data.Key, true
}

// Close implements configuration.Driver.
func (s *store) Close(context.Context) error {
	s.watches.End()
	return s.db.Close()
}
