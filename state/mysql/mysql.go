// Package mysql is the state store "state.mysql": a table of a MySQL or MariaDB
// database, in the layout of Dapr's store of that name, so that both may use one
// table.
//
// It is opened through [Component]. Many keys are read in one query; changes that
// come together are one transaction, in which each still counts by itself.
//
// Promises: a change that returned is committed, and every later read of the same
// server sees it. Transactions are whole or not done at all. Items expire by the
// clock of the database, to the second.
package mysql

import (
	"context"
	"errors"
	"sync"
	"time"

	client "github.com/penstock-io/penstock/client/mysql"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.mysql".
var Component = state.Define("mysql", component.About{
	Summary: "Values in a table of a MySQL or MariaDB database",
	Ack:     "A change is committed when it returns",
	Order:   "Changes of one key one after the other",
	Limits: "255 bytes for each key, prefix included; a value must fit into max_allowed_packet (16 MiB unless the server says otherwise); " +
		"nothing can be kept for longer than until 2038",
	Scale: "Any number of processes use the table; one of them cleans it",
	Dapr: "The table is the same, but for the keys of a table that is made here: they are bytes, where those of Dapr's are compared by the database's own rules. " +
		"In a table that Dapr made, keys that differ only in case or in spaces at their end may be one. url is another name of connectionString",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.mysql
  version: v1
  metadata:
    - name: connectionString
      value: app:secret@tcp(localhost:3306)/
`,
}, open)

type options struct {
	client.Options
	SchemaName        string        `meta:"schemaName" default:"dapr_state_store" doc:"Database of the tables, whatever the connection string names; made when it is not there."`
	TableName         string        `meta:"tableName" default:"state" doc:"Table of the values; made when it is not there."`
	MetadataTableName string        `meta:"metadataTableName" default:"dapr_metadata" doc:"Table that notes the last cleaning."`
	Timeout           time.Duration `meta:"timeout" alias:"timeoutInSeconds" default:"20s" doc:"Longest time of one operation; at least 1s."`
	CleanupInterval   time.Duration `meta:"cleanupInterval" alias:"cleanupIntervalInSeconds" default:"1h" doc:"How often expired rows are deleted; 0 or less: never. They are not visible before either."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{
		o.Options.Check(), state.CheckTable("schemaName", o.SchemaName), state.CheckTable("tableName", o.TableName),
		state.CheckTable("metadataTableName", o.MetadataTableName),
	}
	if o.Timeout < time.Second {
		errs = append(errs, component.OptionErrorf("timeout", "must be at least 1s"))
	}
	return errors.Join(errs...)
}

type store struct {
	db      *client.DB
	timeout time.Duration
	t       table
	close   func() error
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	s := &store{db: db, timeout: o.Timeout, t: tableOf(o)}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	statements, err := prepare(ctx, db.Pool(), s.t.queries())
	if err != nil {
		return nil, errors.Join(client.Classify(err), db.Close())
	}
	s.t.ready = statements
	stop := state.Sweep(ctx, env.Logger, o.CleanupInterval, func(ctx context.Context) error { return s.clean(ctx, o.CleanupInterval) })
	s.close = sync.OnceValue(func() error {
		stop()
		for _, st := range statements {
			_ = st.Close() // frees memory of the server
		}
		return db.Close()
	})
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Close ends cleaning and lets go of the connections.
func (s *store) Close(context.Context) error { return s.close() }
