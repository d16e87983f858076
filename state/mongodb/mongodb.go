// Package mongodb is the state store "state.mongodb": values in a collection of
// MongoDB.
//
// It is opened through [Component]. The documents are those of Dapr's component:
// _id, value, _etag and _ttl, where a value that is JSON is a document that other
// programs can query.
//
// Promises: a change is done when the servers that writeconcern names have it.
// Transactions are whole or not done at all, where the server has them; it is
// asked. A document that has expired is seen by nobody, and deleted by MongoDB
// within a minute. A query finds what is kept as JSON, in one order of pages.
package mongodb

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.mongodb".
var Component = state.Define("mongodb", component.About{
	Summary: "Values in a collection of MongoDB",
	Ack:     "A change is done when the servers that writeconcern names have it in their journals",
	Order:   "Changes of one key one after the other",
	Limits: "16 MiB for a document. Transactions, and with them actors and the outbox, need a server that has them: a replica set or a sharded cluster of MongoDB. " +
		"The server is asked when the store is opened; one without them is told in the log, and its transactions are refused",
	Scale: "Any number of processes share a collection. Documents expire by the clock of the process that saved them",
	Dapr: "Same documents, so that both can share a collection. Dapr has transactions when the address names replicaSet; here it is the server that says. " +
		"First-write takes what has expired for gone; a query for null does not find items without the field; saving with an ETag that is not the document's is a conflict. " +
		"JSON that MongoDB cannot keep exactly (large numbers, names with dots or dollars, the same name twice) is kept as text, and bytes that are no text as binary. " +
		"A server that cannot delete by itself what has expired, as FerretDB, is told to do it every hour",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.mongodb
  version: v1
  metadata:
    - name: host
      value: localhost:27017
    - name: databaseName
      value: penstock
`,
}, open)

// parallel is how many changes are under way at once.
const parallel = 16

type store struct {
	items        *mongo.Collection
	timeout      time.Duration
	transactions bool // the server has them
	sweeps       bool // the server does not delete what has expired
	close        func(context.Context) error
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	wc, err := o.writeConcern()
	if err != nil {
		return nil, err
	}
	conf := mongooptions.Client().ApplyURI(o.uri())
	if conf.Validate() != nil { // its words may have the password in them
		return nil, fault.New(fault.Invalid, "connect to MongoDB: the address cannot be read, or the records of its name cannot be found")
	}
	if conf.AppName == nil {
		conf.SetAppName("penstock")
	}
	conf.SetServerSelectionTimeout(o.Timeout).SetConnectTimeout(o.Timeout)
	c, err := mongo.Connect(conf)
	if err != nil {
		return nil, fault.New(fault.Invalid, "connect to MongoDB: %w", err)
	}
	s := &store{timeout: o.Timeout}
	stop := func() {}
	var once sync.Once
	s.close = func(ctx context.Context) (err error) {
		once.Do(func() {
			stop()
			err = c.Disconnect(ctx)
		})
		return err
	}
	s.items = c.Database(o.Database).Collection(o.Collection, mongooptions.Collection().SetWriteConcern(wc).SetReadConcern(&readconcern.ReadConcern{Level: o.Read}))
	if err := s.prepare(ctx); err != nil {
		_ = s.close(ctx) // the first error says more
		return nil, fault.Wrap(err, "connect to MongoDB")
	}
	if !s.transactions && env.Logger != nil {
		env.Logger.Info("the server has no transactions: MongoDB has them on replica sets and sharded clusters only")
	}
	if s.sweeps {
		stop = state.Sweep(ctx, env.Logger, sweepEvery, s.sweep)
	}
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features {
	return state.Features{ETag: true, TTL: true, NoTransactions: !s.transactions}
}

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	items := make([]state.Item, len(keys))
	if len(keys) == 0 {
		return items, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	at := make(map[string][]int, len(keys))
	for i, key := range keys {
		at[key] = append(at[key], i)
	}
	found, err := s.items.Find(ctx, bson.D{{Key: fieldID, Value: bson.D{{Key: "$in", Value: keys}}}})
	if err != nil {
		return nil, classify(err)
	}
	now := time.Now()
	for found.Next(ctx) {
		key, it := decode(found.Current, now)
		for _, i := range at[key] {
			items[i] = it
		}
	}
	return items, classify(errors.Join(found.Err(), found.Close(ctx)))
}

// Keys implements state.Lister. The token is the last key of the page before.
func (s *store) Keys(ctx context.Context, prefix, token string, limit int) ([]string, string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	from := bson.D{{Key: "$gte", Value: prefix}}
	if token != "" {
		from = bson.D{{Key: "$gt", Value: token}}
	}
	filter := append(bson.D{{Key: fieldID, Value: from}}, alive(time.Now())...)
	found, err := s.items.Find(ctx, filter, mongooptions.Find().
		SetSort(bson.D{{Key: fieldID, Value: 1}}).SetLimit(int64(limit)+1).SetProjection(bson.D{{Key: fieldID, Value: 1}}))
	if err != nil {
		return nil, "", classify(err)
	}
	var keys []string
	for found.Next(ctx) {
		key, ok := found.Current.Lookup(fieldID).StringValueOK()
		if !ok || !strings.HasPrefix(key, prefix) { // they come in order
			break
		}
		keys = append(keys, key)
	}
	if err := classify(errors.Join(found.Err(), found.Close(ctx))); err != nil {
		return nil, "", err
	}
	if len(keys) <= limit {
		return keys, "", nil
	}
	return keys[:limit], keys[limit-1], nil
}

// Close implements component.Driver.
func (s *store) Close(ctx context.Context) error { return s.close(ctx) }
