package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// order is what a broker promises of the events of one key.
type order int

const (
	always     order = iota
	oneReplica       // while one sidecar reads
	noOrder
)

// broker is what the rows need to know of one.
type broker struct {
	name, version string
	// open makes it ready before the first row; nil when there is nothing to do.
	open func(*testing.T)
	// resource is the YAML of the component, called bus.
	resource func(*run) string
	// addr is where its server listens; nil when it has none.
	addr func() string
	// watch tells what the broker holds, without penstock; nil when it does not
	// show that.
	watch func(*run) (look lookFunc, done func())
	every time.Duration // between two looks; 0 is 50 ms
	most  int           // rows that are played with it at the same time; 0 is all
	rate  int           // events a second where a row names none; 0 is the usual
	// idle: what it holds shows only while no sidecar runs.
	idle  bool
	order order
	// server stops and starts its server; hasServer tells before open that there
	// is one.
	server    server
	hasServer bool
	// remove takes the queue, stream or group away, and there tells whether it is
	// there; nil when there is none to take away.
	remove func(context.Context, *run) error
	there  func(context.Context, *run) (bool, error)
	// proxy puts proxies in front of it for a row, where one in front of addr will
	// not do, and tells the address to come by.
	proxy func(*testing.T, *row) (network, string)
	// alone: one sidecar serves a group, the others stand by.
	alone bool
	// not are rows that do not apply, with the reason.
	not map[string]string
}

// server is a broker's server that belongs to the test alone. Start uses the
// port and the data of before.
type server interface {
	Stop()
	Start()
	Kill()
}

// lookFunc looks at the broker once.
type lookFunc func(context.Context) (seen, error)

// seen is one of: the events that the broker holds, those that it knows as
// acknowledged, or the number of those that it holds.
type seen struct {
	held map[string]bool
	// shown are all that it ever showed, where it may confirm an event a while
	// before it shows it; nil where it shows what it has confirmed.
	shown map[string]bool
	acked []string
	count int
}

// lagging is how long a broker may not show what it has confirmed: a leader of Kafka
// shows only what its followers told it that they have. What is not shown for longer
// was deleted.
const lagging = 10 * time.Second

func (b *broker) interval() time.Duration {
	if b.every > 0 {
		return b.every
	}
	return 50 * time.Millisecond
}

func (b *broker) ordered(r *row) bool {
	switch b.order {
	case always:
		return true
	case oneReplica:
		return !r.many
	}
	return false
}

// componentYAML is the YAML of a broker called bus; options are names and values.
func componentYAML(kind string, options ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec:\n  type: %s\n  version: v1\n  metadata:\n", kind)
	for i := 0; i+1 < len(options); i += 2 {
		fmt.Fprintf(&b, "    - {name: %s, value: %q}\n", options[i], options[i+1])
	}
	return b.String()
}

func sqliteBroker() *broker {
	file := func(x *run) string { return filepath.Join(x.dir, "bus.db") }
	return &broker{
		name: "sqlite",
		resource: func(x *run) string {
			return componentYAML("pubsub.sqlite", "connectionString", file(x), "redeliverInterval", "3s")
		},
		watch: func(x *run) (lookFunc, func()) { return watchSQLite(x, file(x)) },
		alone: true,
	}
}

// watchSQLite reads which events wait for the group.
func watchSQLite(x *run, file string) (lookFunc, func()) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		x.Error(err)
	}
	return func(ctx context.Context) (s seen, err error) {
		rows, err := db.QueryContext(ctx, `SELECT m.body FROM pubsub_pending p JOIN pubsub_messages m ON m.id = p.id
			JOIN pubsub_queues q ON q.id = p.queue WHERE q.topic = ?`, x.name)
		if err != nil {
			return s, err
		}
		defer rows.Close()
		s.held = map[string]bool{}
		for rows.Next() {
			var body []byte
			if err := rows.Scan(&body); err != nil {
				return s, err
			}
			if id, ok := idIn(body); ok {
				s.held[id] = true
			}
		}
		return s, rows.Err()
	}, func() { db.Close() }
}
