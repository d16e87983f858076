// Package postgres is the binding that runs statements on a PostgreSQL database,
// and reads a channel or a table of it.
//
// Configure it as bindings.postgres; invoke it with the metadata sql and,
// for its $1, $2..., params as a JSON array. exec changes rows and query returns
// them, as a JSON array with an array for each row. With channel each notification
// is an event, with table each row, which is deleted or marked when it is done.
//
// It promises that a change is committed when exec returns. It keeps no more than
// 64 MiB of an answer. A row is deleted or marked in the transaction that locked
// it, so that of a process that dies the server gives it back. A notification is
// with this process only: what is sent while it does not listen, and what it has
// not settled when it ends, is gone.
package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.postgres".
var Component = bindings.Define("postgres", component.About{
	Summary: "Runs statements on a PostgreSQL database, and reads notifications or the rows of a table",
	Ack: "The change is committed when exec returns. A row is deleted, or its status changed, in the transaction that locked it; " +
		"one that is not settled is given back by the server when the process dies. A notification has no place to come back from but this process",
	Order: "Calls run at the same time, on as many connections as maxConns. Rows come in the order of keyColumn, maxInFlight at a time; " +
		"one that is tried again is overtaken",
	Limits: "maxConns connections, and maxInFlight + 2 more for a table or one for a channel; an answer of 64 MiB; 1024 notifications in memory, of less than 8000 bytes each, then the server keeps them; " +
		"10000 rows that wait for a retry. Every row under way is an open transaction: keep idle_in_transaction_session_timeout above what a delivery takes",
	Scale: "Every process has its own connections; components of one process with the same settings share them. Processes share the rows of a table: one that is locked is skipped. Each gets every notification",
	Dapr:  "Reading is ours: Dapr's is an output only. Values of type uuid come as text. The operation close answers and closes nothing: others may share the connections.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders-db
spec:
  type: bindings.postgres
  version: v1
  metadata:
    - name: connectionString
      value: postgres://app@localhost:5432/orders
    - name: table
      value: outbox
    - name: dataColumn
      value: body
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"exec", "query", "close"} }

const maxAnswer = 64 << 20

type options struct {
	client.Options
	inputOptions
}

// Check implements component.Checker.
func (o options) Check() error { return errors.Join(o.Options.Check(), o.check()) }

type binding struct {
	db      *client.DB
	timeout time.Duration
	closed  atomic.Bool
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	return openInput(ctx, env, &binding{db: db, timeout: o.Timeout}, o)
}

// Operations returns exec, query and close.
func (b *binding) Operations() []string { return operations() }

// Invoke runs one statement.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(err, "run statement")
	}
	if b.closed.Load() {
		return nil, fault.New(fault.Unavailable, "run statement: the binding is closed")
	}
	switch r.Operation {
	case "close":
		return nil, nil
	case "exec", "query":
	default:
		return nil, fault.New(fault.Invalid, "run statement: operation %.40q is not supported; use exec, query or close", r.Operation)
	}
	sql := r.Metadata["sql"]
	if sql == "" {
		return nil, fault.New(fault.Invalid, "run statement: metadata sql is missing")
	}
	args, err := params(r.Metadata["params"])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	start := time.Now()
	resp := &bindings.Response{Metadata: map[string]string{"operation": r.Operation, "sql": sql}}
	if r.Operation == "exec" {
		tag, err := b.db.Pool().Exec(ctx, sql, args...)
		if err != nil {
			return nil, fault.Wrap(client.Classify(err), "run statement")
		}
		resp.Metadata["rows-affected"] = strconv.FormatInt(tag.RowsAffected(), 10)
	} else if resp.Data, err = b.query(ctx, sql, args); err != nil {
		return nil, fault.Wrap(client.Classify(err), "run statement")
	}
	end := time.Now()
	resp.Metadata["start-time"] = start.UTC().Format(time.RFC3339Nano)
	resp.Metadata["end-time"] = end.UTC().Format(time.RFC3339Nano)
	resp.Metadata["duration"] = end.Sub(start).String()
	return resp, nil
}

// query returns the rows as JSON.
func (b *binding) query(ctx context.Context, sql string, args []any) ([]byte, error) {
	rows, err := b.db.Pool().Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []byte{'['}
	for rows.Next() {
		row, err := encode(rows)
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		if out = append(out, row...); len(out) > maxAnswer {
			return nil, fault.New(fault.Invalid, "the answer is larger than %d bytes; ask for fewer rows", maxAnswer)
		}
	}
	return append(out, ']'), rows.Err()
}

// encode makes an array of the row's values.
func encode(rows pgx.Rows) ([]byte, error) {
	values, err := rows.Values()
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if id, ok := v.([16]byte); ok {
			values[i] = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
		}
	}
	row, err := json.Marshal(values)
	return row, fault.As(fault.Invalid, err)
}

// params reads a JSON array. Whole numbers stay whole.
func params(text string) ([]any, error) {
	if text == "" {
		return nil, nil
	}
	var args []any
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(&args); err != nil || d.More() {
		return nil, fault.New(fault.Invalid, "run statement: metadata params is not a JSON array")
	}
	for i, a := range args {
		n, ok := a.(json.Number)
		if !ok {
			continue
		}
		if whole, err := n.Int64(); err == nil {
			args[i] = whole
		} else if f, err := n.Float64(); err == nil {
			args[i] = f
		} else {
			args[i] = n.String()
		}
	}
	return args, nil
}

// Close lets go of the connections.
func (b *binding) Close(context.Context) error {
	b.closed.Store(true)
	return b.db.Close()
}
