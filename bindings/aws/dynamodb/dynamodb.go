// Package dynamodb is the binding "bindings.aws.dynamodb": it puts items into one
// table of DynamoDB.
//
// It is an output only; create puts the item that the data, a JSON object, says.
// Text, numbers, booleans, null, lists and objects become what DynamoDB has for
// them; numbers keep all of their digits.
//
// Promises: an invocation returns when DynamoDB has the item. An item of the same
// key is replaced, so that trying again does no harm.
package dynamodb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("aws.dynamodb", component.About{
	Summary: "Puts items into a table of Amazon DynamoDB",
	Ack:     "An invocation returns when DynamoDB has the item",
	Order:   "None between calls made side by side",
	Limits:  "400 KiB for an item, 32 levels of lists and objects, numbers of 38 digits",
	Scale:   "Any number of processes may write to the table; the last writer of a key wins",
	Dapr: "Numbers keep all of their digits instead of those of a float. " +
		"Data that is no JSON object is refused with an error of kind invalid, and so is what DynamoDB says of an item, so that it is not tried again",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: items
spec:
  type: bindings.aws.dynamodb
  version: v1
  metadata:
    - name: table
      value: items
    - name: region
      value: us-east-1
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	Table string `meta:"table,required" doc:"The table, which must exist." example:"items"`
}

type binding struct {
	table   string
	api     *dynamodb.Client
	calls   *client.Calls
	release func() error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	api := dynamodb.NewFromConfig(cfg)
	_, err = api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &o.Table})
	err = client.Wrap(err, "find table %s", o.Table)
	if err != nil && (client.BadCredentials(err) || fault.KindOf(err) != fault.Denied) { // who may write need not be one who may ask
		return nil, errors.Join(err, release())
	}
	return &binding{table: o.Table, api: api, release: release, calls: client.NewCalls(ctx)}, nil
}

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "put item: operation %.40q is not supported; use create", r.Operation)
	}
	item, err := item(r.Data)
	if err != nil {
		return nil, err
	}
	ctx, done, err := b.calls.Begin(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "put item")
	}
	defer done()
	_, err = b.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &b.table, Item: item})
	return nil, client.Wrap(err, "put item into table %s", b.table)
}

// item makes an item of a JSON object.
func item(data []byte) (map[string]types.AttributeValue, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var object map[string]any
	err := d.Decode(&object)
	if err == nil && object == nil {
		err = errors.New("it is null")
	}
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is more behind the object")
		}
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "read item: data must be a JSON object: %w", err)
	}
	return members(object), nil
}

func members(object map[string]any) map[string]types.AttributeValue {
	m := make(map[string]types.AttributeValue, len(object))
	for name, v := range object {
		m[name] = value(v)
	}
	return m
}

// value makes what DynamoDB has for a JSON value.
func value(v any) types.AttributeValue {
	switch v := v.(type) {
	case string:
		return &types.AttributeValueMemberS{Value: v}
	case json.Number:
		return &types.AttributeValueMemberN{Value: v.String()}
	case bool:
		return &types.AttributeValueMemberBOOL{Value: v}
	case map[string]any:
		return &types.AttributeValueMemberM{Value: members(v)}
	case []any:
		list := make([]types.AttributeValue, len(v))
		for i := range v {
			list[i] = value(v[i])
		}
		return &types.AttributeValueMemberL{Value: list}
	default:
		return &types.AttributeValueMemberNULL{Value: true}
	}
}

// Close implements bindings.Driver: it waits for the calls under way until ctx
// ends.
func (b *binding) Close(ctx context.Context) error {
	b.calls.Close(ctx)
	return b.release()
}
