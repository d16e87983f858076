// Package dynamodb is the state store "state.aws.dynamodb": values in a table of
// Amazon DynamoDB.
//
// It is opened through [Component]. The items are those of Dapr's component: the
// key, the value as text or bytes, a random ETag, and the time of expiry.
//
// Promises: a change is done when DynamoDB has it. A strong read sees it, another
// one soon. A transaction is one of DynamoDB's.
package dynamodb

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.aws.dynamodb".
var Component = state.Define("aws.dynamodb", component.About{
	Summary: "Values in a table of Amazon DynamoDB",
	Ack:     "A change is done when DynamoDB has it",
	Limits:  "400 KiB for an item, 2 KiB for its key, 100 changes of a transaction. Times to live need the option ttlAttributeName and that attribute set as the table's; DynamoDB deletes late, and nobody sees what is over",
	Scale:   "Any number of processes share a table",
	Dapr: "Same items, so that both can share a table. Many keys are read in one request. Every change of a transaction heeds its ETag, deletions too, and first-write takes what has expired for gone. " +
		"An item of the table without an ETag has none here",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.aws.dynamodb
  version: v1
  metadata:
    - name: table
      value: state
    - name: region
      value: us-east-1
    - name: ttlAttributeName
      value: expiresAt
`,
}, open)

type options struct {
	client.Options
	Table        string `meta:"table,required" doc:"The table, which must exist, with a partition key of type string alone."`
	TTLAttribute string `meta:"ttlAttributeName" doc:"Attribute with the time of expiry, in seconds since 1970; without it there is no time to live." example:"expiresAt"`
	PartitionKey string `meta:"partitionKey" default:"key" doc:"Name of the table's partition key."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.PartitionKey == attrValue || o.PartitionKey == attrETag || o.PartitionKey == "" {
		errs = append(errs, component.OptionErrorf("partitionKey", "%q is the name of another attribute, or empty", o.PartitionKey))
	}
	if o.TTLAttribute != "" && slices.Contains([]string{attrValue, attrETag, o.PartitionKey}, o.TTLAttribute) {
		errs = append(errs, component.OptionErrorf("ttlAttributeName", "%q is the name of another attribute", o.TTLAttribute))
	}
	return errors.Join(errs...)
}

const (
	attrValue = "value"
	attrETag  = "etag"
	// mostRead is how many items one request may read.
	mostRead = 100
	// mostChanges is how many changes a transaction may have.
	mostChanges = 100
	// parallel is how many changes are under way at once.
	parallel = 32
	// pauseFirst is the wait before what DynamoDB left out is asked for again.
	pauseFirst, pauseMost = 20 * time.Millisecond, time.Second
)

type store struct {
	table, key, ttl string
	api             *dynamodb.Client
	calls           *client.Calls
	release         func() error
}

func open(ctx context.Context, env component.Env, o options) (state.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	s := &store{table: o.Table, key: o.PartitionKey, ttl: o.TTLAttribute, api: dynamodb.NewFromConfig(cfg), calls: client.NewCalls(ctx), release: release}
	_, err = s.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: s.keyOf("penstock")})
	if err = client.Wrap(err, "read table %s", o.Table); err != nil {
		return nil, errors.Join(err, release())
	}
	return s, nil
}

// Features implements state.Featured.
func (s *store) Features() state.Features {
	return state.Features{ETag: true, TTL: s.ttl != "", MaxChanges: mostChanges}
}

func (s *store) keyOf(key string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{s.key: &types.AttributeValueMemberS{Value: key}}
}

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	ctx, done, err := s.calls.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	unique := slices.Clone(keys) // a request must not name one twice
	slices.Sort(unique)
	unique = slices.Compact(unique)
	found := make(map[string]state.Item, len(unique))
	now := time.Now()
	for part := range slices.Chunk(unique, mostRead) {
		if err := s.read(ctx, part, r.Strong, func(item map[string]types.AttributeValue) {
			if key, ok := item[s.key].(*types.AttributeValueMemberS); ok {
				found[key.Value] = s.item(item, now)
			}
		}); err != nil {
			return nil, err
		}
	}
	items := make([]state.Item, len(keys))
	for i, key := range keys {
		items[i] = found[key]
	}
	return items, nil
}

// read reads at most 100 items. What DynamoDB leaves out, for their size or its
// load, is asked for again until ctx ends.
func (s *store) read(ctx context.Context, keys []string, strong bool, take func(map[string]types.AttributeValue)) error {
	left := types.KeysAndAttributes{ConsistentRead: &strong}
	for _, key := range keys {
		left.Keys = append(left.Keys, s.keyOf(key))
	}
	for pause := pauseFirst; ; pause = min(2*pause, pauseMost) {
		out, err := s.api.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{s.table: left}})
		if err != nil {
			return client.Wrap(err, "read table %s", s.table)
		}
		for _, item := range out.Responses[s.table] {
			take(item)
		}
		if left = out.UnprocessedKeys[s.table]; len(left.Keys) == 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// item makes an item of what the table has.
func (s *store) item(attributes map[string]types.AttributeValue, now time.Time) state.Item {
	it := state.Item{Found: true}
	if n, ok := attributes[s.ttl].(*types.AttributeValueMemberN); ok && s.ttl != "" {
		at, err := strconv.ParseInt(n.Value, 10, 64)
		if err == nil {
			it.Expires = time.Unix(at, 0)
			if !it.Expires.After(now) {
				return state.Item{}
			}
		}
	}
	switch v := attributes[attrValue].(type) {
	case *types.AttributeValueMemberS:
		it.Value = []byte(v.Value)
	case *types.AttributeValueMemberB:
		it.Value = v.Value
	case nil:
	default:
		return state.Item{Err: fault.New(fault.Invalid, "read value: the attribute %s is neither text nor bytes", attrValue)}
	}
	if it.Value == nil {
		it.Value = []byte{}
	}
	if v, ok := attributes[attrETag].(*types.AttributeValueMemberS); ok {
		it.ETag = v.Value
	}
	return it
}

// Close waits for the calls under way.
func (s *store) Close(ctx context.Context) error {
	s.calls.Close(ctx)
	return s.release()
}
