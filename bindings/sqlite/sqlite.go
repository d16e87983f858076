// Package sqlite is the output binding that runs statements on a SQLite file.
//
// Configure it as bindings.sqlite; invoke it with the metadata sql and, for its
// ?1, ?2..., params as a JSON array. exec changes rows and query returns them, as
// a JSON array with an array for each row.
//
// It promises that a change is on the disk when exec returns. An answer has at
// most 64 MiB.
package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.sqlite".
var Component = bindings.Define("sqlite", component.About{
	Summary: "Runs statements on a SQLite file",
	Ack:     "The change is on the disk when exec returns",
	Order:   "Changes one after the other, those that wait together in one commit",
	Limits:  "An answer of 64 MiB",
	Scale:   "Processes on one machine may use the file and wait for each other",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: notes
spec:
  type: bindings.sqlite
  version: v1
  metadata:
    - name: connectionString
      value: ./data/notes.db
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"exec", "query"} }

const maxAnswer = 64 << 20

type options struct {
	ConnectionString string        `meta:"connectionString" alias:"path,url" doc:"The file: a path or file:path?params; penstock.db in the data folder when empty." example:"./data/notes.db"`
	Timeout          time.Duration `meta:"timeout" default:"20s" doc:"Longest time of one operation."`
}

type binding struct {
	db      *client.DB
	timeout time.Duration
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	db, err := client.Open(ctx, env, o.ConnectionString)
	if err != nil {
		return nil, err
	}
	return &binding{db, o.Timeout}, nil
}

// Operations returns exec and query.
func (b *binding) Operations() []string { return operations() }

// Invoke runs one statement.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(err, "run statement")
	}
	if r.Operation != "exec" && r.Operation != "query" {
		return nil, fault.New(fault.Invalid, "run statement: operation %.40q is not supported; use exec or query", r.Operation)
	}
	statement := r.Metadata["sql"]
	if statement == "" {
		return nil, fault.New(fault.Invalid, "run statement: metadata sql is missing")
	}
	var args []any
	if text := r.Metadata["params"]; text != "" {
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.UseNumber()
		if err := d.Decode(&args); err != nil {
			return nil, fault.New(fault.Invalid, "run statement: metadata params is not a JSON array")
		}
	}
	for i, a := range args {
		if n, ok := a.(json.Number); ok {
			args[i] = number(n)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	start := time.Now()
	resp := &bindings.Response{Metadata: map[string]string{"operation": r.Operation, "sql": statement}}
	var err error
	if r.Operation == "exec" {
		var n int64
		n, err = b.exec(ctx, statement, args)
		resp.Metadata["rows-affected"] = strconv.FormatInt(n, 10)
	} else {
		resp.Data, err = b.query(ctx, statement, args)
	}
	if err != nil {
		return nil, fault.Wrap(classify(err), "run statement")
	}
	end := time.Now()
	resp.Metadata["start-time"] = start.UTC().Format(time.RFC3339Nano)
	resp.Metadata["end-time"] = end.UTC().Format(time.RFC3339Nano)
	resp.Metadata["duration"] = end.Sub(start).String()
	return resp, nil
}

// classify calls what SQLite will not run invalid: the statement is wrong, and
// trying it again does not mend it.
func classify(err error) error {
	err = client.Classify(err)
	if fault.KindOf(err) == fault.Internal {
		return fault.As(fault.Invalid, err)
	}
	return err
}

// number keeps whole numbers whole.
func number(n json.Number) any {
	if whole, err := n.Int64(); err == nil {
		return whole
	}
	if f, err := n.Float64(); err == nil {
		return f
	}
	return n.String()
}

func (b *binding) exec(ctx context.Context, statement string, args []any) (n int64, err error) {
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec(statement, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// query returns the rows as JSON.
func (b *binding) query(ctx context.Context, statement string, args []any) ([]byte, error) {
	rows, err := b.db.Read().QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, places := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	out := []byte{'['}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return nil, err
		}
		row, err := json.Marshal(values)
		if err != nil {
			return nil, fault.As(fault.Invalid, err)
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

// Close lets go of the file.
func (b *binding) Close(context.Context) error { return b.db.Close() }
