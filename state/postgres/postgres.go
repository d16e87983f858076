// Package postgres is the state store "state.postgresql": a table of a
// PostgreSQL database, in the layout that Dapr's store of the same version has,
// so that both may use one table.
//
// It is opened through [Component]. Version v1 keeps JSON as jsonb and takes the
// row's transaction number for its ETag; v2 keeps bytes, with an ETag of its own.
// Many keys are read in one query, and changes that come together are sent
// together.
//
// Promises: a change that returned is committed, and every later read of the same
// server sees it. Transactions are whole or not done at all. Items expire by the
// clock of the database.
package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.postgresql".
var Component = state.Define("postgresql", component.About{
	Summary: "Values in a table of a PostgreSQL database",
	Ack:     "A change is committed when it returns",
	Order:   "Changes of one key one after the other",
	Limits:  "1 GB for each value, 256 MB of JSON in v1; keys and JSON must be UTF-8 without zero bytes. Version 13 of the server or newer",
	Scale:   "Any number of processes use the table; one of them cleans it",
	Dapr: "The tables are the same, and a Dapr sidecar may use them at the same time. A table that is missing is made even when another one was made before, which Dapr v1 leaves out. " +
		"A malformed ETag is an error of its own in v2 too. In a query numbers are compared as numbers, and texts as texts",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.postgresql
  version: v2
  metadata:
    - name: connectionString
      value: postgres://app@localhost:5432/app
`,
	Versions: []string{"v1", "v2"},
	Also:     []string{"state.postgres"},
}, open)

type options struct {
	client.Options
	TableName         string        `meta:"tableName" default:"state" doc:"v1: table of the values, with its schema or without; made when it is not there." example:"public.state"`
	TablePrefix       string        `meta:"tablePrefix" doc:"v2: what stands before the name of the table, state: a schema and a full stop, the beginning of a name, or both." example:"public.my_"`
	MetadataTableName string        `meta:"metadataTableName" default:"dapr_metadata" doc:"Table that notes the version of the layout and the last cleaning, with its schema or without."`
	CleanupInterval   time.Duration `meta:"cleanupInterval" alias:"cleanupIntervalInSeconds" default:"1h" doc:"How often expired rows are deleted; 0 or less: never. They are not visible before either."`
	UseAzureAD        bool          `meta:"useAzureAD" default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`
	UseAWSIAM         bool          `meta:"useAWSIAM" default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{
		o.Options.Check(), checkName("tableName", o.TableName), checkName("tablePrefix", o.TablePrefix+"state"),
		checkName("metadataTableName", o.MetadataTableName),
	}
	if o.UseAzureAD {
		errs = append(errs, component.OptionErrorf("useAzureAD", "is not supported; use a password"))
	}
	if o.UseAWSIAM {
		errs = append(errs, component.OptionErrorf("useAWSIAM", "is not supported; use a password"))
	}
	return errors.Join(errs...)
}

// checkName checks a table's name, which may have a schema before it.
func checkName(option, name string) error {
	schema, table, found := strings.Cut(name, ".")
	if !found {
		return state.CheckTable(option, name)
	}
	return errors.Join(state.CheckTable(option, schema), state.CheckTable(option, table))
}

type store struct {
	db      *client.DB
	timeout time.Duration
	l       layout
	close   func() error
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	s := &store{db: db, timeout: o.Timeout, l: layoutOf(env.Version, o)}
	if err := s.migrate(ctx); err != nil {
		_ = db.Close() // the error is the one to tell
		return nil, err
	}
	stop := state.Sweep(ctx, env.Logger, o.CleanupInterval, func(ctx context.Context) error { return s.clean(ctx, o.CleanupInterval) })
	s.close = sync.OnceValue(func() error {
		stop()
		return db.Close()
	})
	if s.l.queries {
		return searchable{s}, nil
	}
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Close ends cleaning and lets go of the connections.
func (s *store) Close(context.Context) error { return s.close() }
