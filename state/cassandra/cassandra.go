// Package cassandra is the state store "state.cassandra": values in a table of
// Apache Cassandra, in the layout of Dapr's store of that name, so that both may
// use one table.
//
// It is opened through [Component], which makes the keyspace and the table where
// they are missing. Keys are read and written one by one, each at the node that
// has it, several at a time.
//
// Promises: a change is done when as many replicas have it as consistency says.
// Of two changes of a key the one with the later time wins, by the clocks of the
// processes. There are no ETags and no transactions. Items expire by the clocks of
// the nodes, to the second.
package cassandra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.cassandra".
var Component = state.Define("cassandra", component.About{
	Summary: "Values in a table of Apache Cassandra",
	Ack:     "A change is done when as many replicas have it as consistency says, or a majority of them for a change that asks for strong consistency",
	Order:   "Changes of one key one after the other; of two processes the one with the later clock wins",
	Limits: "Half a segment of the commit log for a key and its value: 16 MiB unless the servers say otherwise. A time to live of at most 20 years. " +
		"No ETags, so that first-write and ETags of requests have no effect; no transactions, and so no actors and no outbox",
	Scale: "Any number of processes share a table",
	Dapr: "Same table. ETags would need light-weight transactions, which do not go together with the plain writes of Dapr's sidecars in one table. " +
		"A read at consistency Any, which Cassandra refuses, is one at One. A request without a consistency and one that asks for eventual are the same: what the option consistency says. " +
		"ttlInSeconds of -1 keeps an item for ever, also where the table has a default",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.cassandra
  version: v1
  metadata:
    - name: hosts
      value: localhost
    - name: consistency
      value: Quorum
`,
}, open)

type options struct {
	Hosts       []string         `meta:"hosts,required" doc:"Nodes to begin with; the others are found by them." example:"10.0.0.1,10.0.0.2"`
	Port        int              `meta:"port" default:"9042" doc:"Port of the nodes."`
	Username    string           `meta:"username" doc:"User to log in as, with password."`
	Password    component.Secret `meta:"password" doc:"Password of username."`
	TLS         bool             `meta:"enableHostVerification" doc:"Speak TLS, and check the nodes' certificates against those that this machine trusts."`
	Protocol    int              `meta:"protoVersion" default:"4" doc:"Version of Cassandra's protocol: 3, 4 or 5."`
	Keyspace    string           `meta:"keyspace" default:"dapr" doc:"Keyspace of the table; made when it is not there."`
	Table       string           `meta:"table" default:"items" doc:"Table of the values; made when it is not there."`
	Replication int              `meta:"replicationFactor" default:"1" doc:"How many replicas a keyspace that is made has."`
	Consistency string           `meta:"consistency" enum:"All|One|Two|Three|Quorum|LocalQuorum|EachQuorum|LocalOne|Any" default:"All" doc:"How many replicas must have a change, and answer a read, when the request does not ask for strong consistency. With strong it is Quorum for a change and All for a read."`
	Timeout     time.Duration    `meta:"timeout" default:"11s" doc:"How long a request may take, and connecting to a node."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	bad := func(option, format string, args ...any) {
		errs = append(errs, component.OptionErrorf(option, format, args...))
	}
	for _, name := range []struct{ option, value string }{{"keyspace", o.Keyspace}, {"table", o.Table}} {
		if err := state.CheckTable(name.option, name.value); err != nil || len(name.value) > mostName || strings.HasPrefix(name.value, "_") {
			bad(name.option, "%.80q is not a name in Cassandra: 1 to %d letters, digits and _, and a letter first", name.value, mostName)
		}
	}
	if o.Port < 1 || o.Port > 65535 {
		bad("port", "must be between 1 and 65535")
	}
	if o.Protocol < 3 || o.Protocol > 5 {
		bad("protoVersion", "must be 3, 4 or 5")
	}
	if o.Replication < 1 {
		bad("replicationFactor", "must be at least 1")
	}
	if o.Timeout <= 0 {
		bad("timeout", "must be more than nothing")
	}
	return errors.Join(errs...)
}

const (
	// mostName is the longest name of a keyspace or a table.
	mostName = 48
	// mostKey is the longest key, in bytes.
	mostKey = 65535
	// mostTTL is the longest time to live.
	mostTTL = 630_720_000 * time.Second
	// parallel is how many changes are under way at once.
	parallel = 16
)

type store struct {
	session     *gocql.Session
	table       string // with its keyspace
	read, write gocql.Consistency
	close       func()
}

func open(ctx context.Context, _ component.Env, o options) (state.Driver, error) {
	s := &store{table: o.Keyspace + "." + o.Table}
	if err := s.write.UnmarshalText([]byte(levels(o.Consistency))); err != nil {
		return nil, component.OptionErrorf("consistency", "%q is not one", o.Consistency)
	}
	if s.read = s.write; s.read == gocql.Any {
		s.read = gocql.One
	}
	session, err := connect(ctx, o.cluster(s.write))
	if err != nil {
		return nil, fault.Wrap(classify(err), "connect to Cassandra")
	}
	s.session = session
	s.close = sync.OnceFunc(session.Close)
	if err := s.prepare(ctx, o); err != nil {
		s.close()
		return nil, fault.Wrap(classify(err), "make table %s", s.table)
	}
	return s, nil
}

// levels turns LocalQuorum into LOCAL_QUORUM.
func levels(word string) string {
	for _, first := range []string{"Local", "Each"} {
		if rest, ok := strings.CutPrefix(word, first); ok {
			return strings.ToUpper(first + "_" + rest)
		}
	}
	return strings.ToUpper(word)
}

func (o options) cluster(c gocql.Consistency) *gocql.ClusterConfig {
	conf := gocql.NewCluster(o.Hosts...)
	conf.Port, conf.ProtoVersion, conf.Consistency = o.Port, o.Protocol, c
	conf.Timeout, conf.ConnectTimeout, conf.WriteTimeout = o.Timeout, o.Timeout, o.Timeout
	conf.MaxWaitSchemaAgreement = o.Timeout
	conf.ReconnectInterval = 5 * time.Second // a node that is back is used again soon
	conf.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	if o.Username != "" && !o.Password.IsZero() {
		conf.Authenticator = gocql.PasswordAuthenticator{Username: o.Username, Password: o.Password.Reveal()}
	}
	if o.TLS {
		conf.SslOpts = &gocql.SslOptions{EnableHostVerification: true}
	}
	return conf
}

// connect connects, no longer than ctx lasts: the library knows no context here,
// and tries each node for as long as a request may take.
func connect(ctx context.Context, conf *gocql.ClusterConfig) (*gocql.Session, error) {
	type result struct {
		session *gocql.Session
		err     error
	}
	got := make(chan result)
	go func() {
		session, err := conf.CreateSession()
		select {
		case got <- result{session, err}:
		case <-ctx.Done():
			if err == nil {
				session.Close()
			}
		}
	}()
	select {
	case r := <-got:
		return r.session, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// prepare makes the keyspace and the table. What is there already needs no right
// to make any.
func (s *store) prepare(ctx context.Context, o options) error {
	const seek = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?"
	var name string
	err := s.session.Query(seek, strings.ToLower(o.Keyspace), strings.ToLower(o.Table)).Consistency(gocql.One).ScanContext(ctx, &name)
	if !errors.Is(err, gocql.ErrNotFound) {
		return err
	}
	for _, text := range []string{
		fmt.Sprintf("CREATE KEYSPACE IF NOT EXISTS %s WITH REPLICATION = {'class': 'SimpleStrategy', 'replication_factor': %d}", o.Keyspace, o.Replication),
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (key text PRIMARY KEY, value blob)", s.table),
	} {
		if err := s.session.Query(text).ExecContext(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{TTL: true} }

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	level := s.read
	if r.Strong {
		level = gocql.All
	}
	text := "SELECT value, TTL(value), toTimestamp(now()) FROM " + s.table + " WHERE key = ?"
	return state.GetEach(ctx, keys, r, func(ctx context.Context, key string) (state.Item, error) {
		var value []byte
		var left int
		var now time.Time
		if err := legal(key); err != nil {
			return state.Item{}, err
		}
		err := s.session.Query(text, key).Consistency(level).Idempotent(true).ScanContext(ctx, &value, &left, &now)
		switch {
		case errors.Is(err, gocql.ErrNotFound):
			return state.Item{}, nil
		case err != nil:
			return state.Item{}, classify(err)
		}
		it := state.Item{Found: true, Value: value}
		if left > 0 {
			it.Expires = now.Add(time.Duration(left) * time.Second).UTC()
		}
		return it, nil
	})
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, func(ctx context.Context, c *state.Change) error {
		if err := legal(c.Key); err != nil {
			return err
		}
		level := s.write
		if c.Strong {
			level = gocql.Quorum
		}
		text, args, err := s.statement(c)
		if err != nil {
			return err
		}
		return classify(s.session.Query(text, args...).Consistency(level).Idempotent(true).ExecContext(ctx))
	})
}

// statement is a change in CQL.
func (s *store) statement(c *state.Change) (string, []any, error) {
	if c.Delete {
		return "DELETE FROM " + s.table + " WHERE key = ?", []any{c.Key}, nil
	}
	value := c.Value
	if value == nil {
		value = []byte{} // nil would be null, which is no value
	}
	text, args := "INSERT INTO "+s.table+" (key, value) VALUES (?, ?)", []any{c.Key, value}
	switch {
	case c.TTL > mostTTL:
		return "", nil, fault.New(fault.Invalid, "the time to live is too long: this store keeps an item for at most %d seconds", mostTTL/time.Second)
	case c.TTL < 0: // for ever, whatever the table says
		return text + " USING TTL ?", append(args, 0), nil
	case c.TTL > 0:
		return text + " USING TTL ?", append(args, int(state.Whole(c.TTL)/time.Second)), nil
	}
	return text, args, nil
}

func legal(key string) error {
	if key == "" || len(key) > mostKey {
		return fault.New(fault.Invalid, "the key has %d bytes with its prefix; this store takes 1 to %d", len(key), mostKey)
	}
	return nil
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error {
	s.close()
	return nil
}
