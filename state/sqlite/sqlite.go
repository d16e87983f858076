// Package sqlite is the state store "state.sqlite": a table in a SQLite file, in
// the layout of Dapr's store of that name, so that both may use one file.
//
// It is opened through [Component]. Reads run side by side; changes of callers
// that wait at the same moment share one commit.
//
// Promises: a change that returned is on the disk and survives a killed process
// and a lost machine, and every later read sees it. Changes are atomic, and
// transactions are serial. Items expire by the clock of the machine, to the
// second, never early. Memory: what client/sqlite takes, and the values under way.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.sqlite".
var Component = state.Define("sqlite", component.About{
	Summary: "Values in a table of a SQLite file, for one machine and without a server",
	Ack:     "A change is on the disk when it returns; callers that wait together share a commit",
	Order:   "Changes one after the other",
	Limits:  "A value must fit into memory a few times; SQLite takes up to 1 GB",
	Scale:   "Processes on one machine may use the file and wait for each other",
	Dapr: "The table and the file are the same, and a Dapr sidecar may use them at the same time. The log (WAL) and flushing at each commit are always on. " +
		"Expired rows are deleted every hour, where Dapr keeps them unless told otherwise. An in-memory database is refused",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.sqlite
  version: v1
  metadata:
    - name: connectionString
      value: ./data/state.db
`,
}, open)

type options struct {
	ConnectionString  string            `meta:"connectionString" alias:"url" doc:"The file: a path or file:path?params; penstock.db in the data folder when empty." example:"./data/state.db"`
	Timeout           time.Duration     `meta:"timeout" alias:"timeoutInSeconds" default:"20s" doc:"Longest time of one operation."`
	BusyTimeout       time.Duration     `meta:"busyTimeout" doc:"Longest wait while another process holds the file: 5s unless set here or in connectionString. The first component to open a file decides."`
	TableName         string            `meta:"tableName" default:"state" doc:"Table of the values; made when it is not there."`
	MetadataTableName string            `meta:"metadataTableName" default:"metadata" doc:"Table that notes the version of the layout."`
	CleanupInterval   time.Duration     `meta:"cleanupInterval" alias:"cleanupIntervalInSeconds" default:"1h" doc:"How often expired rows are deleted; 0 or less: never. They are not visible before either."`
	DisableWAL        component.Ignored `meta:"disableWAL" doc:"The write-ahead log is always on."`
}

// Check implements component.Checker.
func (o options) Check() error {
	return errors.Join(state.CheckTable("tableName", o.TableName), state.CheckTable("metadataTableName", o.MetadataTableName))
}

type store struct {
	db      *client.DB
	timeout time.Duration
	q       queries
	one     *sql.Stmt // reads one item
	stop    func()    // ends cleaning
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	db, err := client.Open(ctx, env, client.WithBusyTimeout(env, o.ConnectionString, o.BusyTimeout))
	if err != nil {
		return nil, err
	}
	s := &store{db: db, timeout: o.Timeout, q: queriesOf(o.TableName)}
	if err := s.migrate(ctx, o); err != nil {
		_ = db.Close() // the error is the one to tell
		return nil, err
	}
	if s.one, err = db.Read().PrepareContext(ctx, s.q.read+"?"+s.q.live); err != nil {
		_ = db.Close() // as above
		return nil, client.Classify(err)
	}
	s.stop = state.Sweep(ctx, env.Logger, o.CleanupInterval, s.clean)
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Close ends cleaning and lets go of the file.
func (s *store) Close(context.Context) error {
	s.stop()
	_ = s.one.Close() // frees memory; the file is what counts
	return s.db.Close()
}
