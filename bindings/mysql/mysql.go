// Package mysql is the output binding that runs statements on a MySQL or MariaDB
// database.
//
// Configure it as bindings.mysql; invoke it with the metadata sql and, for its ?
// in their order, params as a JSON array. exec changes rows and query returns
// them, as a JSON array with an object for each row.
//
// It promises that a change is committed when exec returns. It keeps no more than
// 64 MiB of an answer.
package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/mysql"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.mysql".
var Component = bindings.Define("mysql", component.About{
	Summary: "Runs statements on a MySQL or MariaDB database",
	Ack:     "The change is committed when exec returns",
	Order:   "Calls run at the same time, on as many connections as maxOpenConns",
	Limits:  "maxOpenConns connections; an answer of 64 MiB",
	Scale:   "Every process has its own connections; components of one process with the same settings share them",
	Dapr: "Of a row, columns that are NULL are there as null. Binary columns are base64, and every other that is no number is text, JSON and DECIMAL too. " +
		"The operation close answers and closes nothing: others may share the connections.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders-db
spec:
  type: bindings.mysql
  version: v1
  metadata:
    - name: url
      value: app@tcp(localhost:3306)/orders
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"exec", "query", "close"} }

const maxAnswer = 64 << 20

type options struct {
	client.Options
	Timeout time.Duration `meta:"timeout" default:"60s" doc:"Longest time of one operation; at least 1s."`
}

// Check implements component.Checker.
func (o options) Check() error {
	err := o.Options.Check()
	if o.Timeout < time.Second {
		err = errors.Join(err, component.OptionErrorf("timeout", "must be at least 1s"))
	}
	return err
}

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
	return &binding{db: db, timeout: o.Timeout}, nil
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
	statement := r.Metadata["sql"]
	if statement == "" {
		return nil, fault.New(fault.Invalid, "run statement: metadata sql is missing")
	}
	args, err := params(r.Metadata["params"])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	start := time.Now()
	resp := &bindings.Response{Metadata: map[string]string{"operation": r.Operation, "sql": statement}}
	if r.Operation == "exec" {
		var n int64
		n, err = b.exec(ctx, statement, args)
		resp.Metadata["rows-affected"] = strconv.FormatInt(n, 10)
	} else {
		resp.Data, err = b.query(ctx, statement, args)
	}
	if err != nil {
		return nil, fault.Wrap(client.Classify(err), "run statement")
	}
	end := time.Now()
	resp.Metadata["start-time"] = start.UTC().Format(time.RFC3339Nano)
	resp.Metadata["end-time"] = end.UTC().Format(time.RFC3339Nano)
	resp.Metadata["duration"] = end.Sub(start).String()
	return resp, nil
}

func (b *binding) exec(ctx context.Context, statement string, args []any) (int64, error) {
	res, err := b.db.Pool().ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// query returns the rows as JSON.
func (b *binding) query(ctx context.Context, statement string, args []any) ([]byte, error) {
	rows, err := b.db.Pool().QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	row := newRow(columns)
	out := []byte{'['}
	for rows.Next() {
		if err := rows.Scan(row.places...); err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		if out, err = row.append(out); err != nil {
			return nil, err
		}
		if len(out) > maxAnswer {
			return nil, fault.New(fault.Invalid, "the answer is larger than %d bytes; ask for fewer rows", maxAnswer)
		}
	}
	return append(out, ']'), rows.Err()
}

// row makes objects of rows.
type row struct {
	names  []string // as JSON, with a colon behind
	binary []bool
	number []bool // of 64 bits, which comes as text when it has no sign
	values []any
	places []any
}

func newRow(columns []*sql.ColumnType) *row {
	n := len(columns)
	r := &row{names: make([]string, n), binary: make([]bool, n), number: make([]bool, n), values: make([]any, n), places: make([]any, n)}
	for i, c := range columns {
		name, err := json.Marshal(c.Name())
		if err != nil {
			name = []byte(strconv.Quote(c.Name())) // a text always has a form
		}
		r.names[i] = string(name) + ":"
		kind := c.DatabaseTypeName()
		r.binary[i], r.number[i] = binary(kind), strings.HasSuffix(kind, "BIGINT")
		r.places[i] = &r.values[i]
	}
	return r
}

// binary tells whether a column holds bytes rather than text.
func binary(kind string) bool {
	return strings.HasSuffix(kind, "BLOB") || strings.HasSuffix(kind, "BINARY") || kind == "BIT" || kind == "GEOMETRY"
}

func (r *row) append(out []byte) ([]byte, error) {
	out = append(out, '{')
	for i, v := range r.values {
		switch text, ok := v.([]byte); {
		case ok && r.number[i]:
			v = json.Number(text)
		case ok && !r.binary[i]:
			v = string(text)
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, fault.As(fault.Invalid, err)
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, r.names[i]...), value...)
	}
	return append(out, '}'), nil
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
		switch v := a.(type) {
		case json.Number:
			args[i] = number(v)
		case []any, map[string]any:
			return nil, fault.New(fault.Invalid, "run statement: metadata params: value %d is no text, number, boolean or null", i+1)
		}
	}
	return args, nil
}

func number(n json.Number) any {
	if whole, err := n.Int64(); err == nil {
		return whole
	}
	if whole, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return whole
	}
	if f, err := n.Float64(); err == nil {
		return f
	}
	return n.String()
}

// Close lets go of the connections.
func (b *binding) Close(context.Context) error {
	b.closed.Store(true)
	return b.db.Close()
}
