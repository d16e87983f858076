// Package kinesis is the binding "bindings.aws.kinesis": it puts records into one
// stream of Kinesis.
//
// It is an output only; create puts the data as a record. Metadata partitionKey
// says which records stay together; without one each goes anywhere.
//
// Promises: an invocation returns when Kinesis has the record. What is invoked
// side by side is put in one request, up to 500 records, and each has its own
// result.
package kinesis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("aws.kinesis", component.About{
	Summary: "Puts records into a stream of Amazon Kinesis",
	Ack:     "An invocation returns when Kinesis has the record",
	Order:   "Calls made one after the other stay in order in their partition key; those made side by side have none",
	Limits:  "1 MiB for a record with its key, 256 characters for a key; 4 requests of 500 records or 5 MiB under way; 60 s for an invocation",
	Scale:   "Any number of processes may write to the stream",
	Dapr: "Records of calls made side by side go in one request. There is no input: records are not read, " +
		"so consumerName and mode have no effect; let a rule of EventBridge Pipes write them to a queue and read that with bindings.aws.sqs",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: clicks
spec:
  type: bindings.aws.kinesis
  version: v1
  metadata:
    - name: streamName
      value: clicks
    - name: region
      value: us-east-1
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	StreamName   string            `meta:"streamName,required" doc:"The stream, which must exist." example:"clicks"`
	ConsumerName component.Ignored `meta:"consumerName" doc:"There is no input."`
	Mode         component.Ignored `meta:"mode" alias:"kinesisConsumerMode" doc:"There is no input."`
}

// Limits of Kinesis.
const (
	most        = 500     // records in a request
	recordBytes = 1 << 20 // with its key
	batchBytes  = 5 << 20 // of a request
	keyMost     = 256     // characters
	parallel    = 4       // requests under way
)

// record is one record to put.
type record struct {
	key  string
	data []byte
}

type binding struct {
	stream  string
	api     *kinesis.Client
	send    *batch.Writer[record]
	release func() error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	b := &binding{stream: o.StreamName, api: kinesis.NewFromConfig(cfg), release: release}
	_, err = b.api.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &o.StreamName})
	err = client.Wrap(err, "find stream %s", o.StreamName)
	if err != nil && (client.BadCredentials(err) || fault.KindOf(err) != fault.Denied) { // who may write need not be one who may ask
		return nil, errors.Join(err, release())
	}
	b.send = batch.NewWriter(ctx, batch.Options[record]{
		Write: b.put, Most: most, Bytes: batchBytes, Size: func(r record) int { return len(r.key) + len(r.data) }, Parallel: parallel,
	})
	return b, nil
}

// put sends records and returns the result of each.
func (b *binding) put(ctx context.Context, rs []record) []error {
	in := &kinesis.PutRecordsInput{StreamName: &b.stream, Records: make([]types.PutRecordsRequestEntry, len(rs))}
	for i := range rs {
		data := rs[i].data
		if data == nil {
			data = []byte{}
		}
		in.Records[i] = types.PutRecordsRequestEntry{Data: data, PartitionKey: &rs[i].key}
	}
	out, err := b.api.PutRecords(ctx, in)
	if err != nil {
		return batch.All(len(rs), client.Wrap(err, "put records into stream %s", b.stream))
	}
	var errs []error
	for i, r := range out.Records {
		if r.ErrorCode == nil || i >= len(rs) {
			continue
		}
		if errs == nil {
			errs = make([]error, len(rs))
		}
		errs[i] = fault.New(client.KindOfCode(*r.ErrorCode, false), "put record into stream %s: %s: %s", b.stream, *r.ErrorCode, aws.ToString(r.ErrorMessage))
	}
	return errs
}

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// invokeTimeout is how long an invocation may take whose caller does not say.
const invokeTimeout = 60 * time.Second

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "put record: operation %.40q is not supported; use create", r.Operation)
	}
	x := record{key: r.Metadata["partitionKey"], data: r.Data}
	if x.key == "" {
		x.key = rand.Text()
	}
	if n := len([]rune(x.key)); n > keyMost {
		return nil, fault.New(fault.Invalid, "read metadata partitionKey: %d characters, Kinesis takes %d", n, keyMost)
	}
	if n := len(x.key) + len(x.data); n > recordBytes {
		return nil, fault.New(fault.Invalid, "put record: %d bytes with its key, Kinesis takes %d", n, recordBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	for _, err := range b.send.Do(ctx, x) {
		return nil, err
	}
	return nil, nil
}

// Close implements bindings.Driver: it waits for what is being put until ctx
// ends.
func (b *binding) Close(ctx context.Context) error {
	return errors.Join(b.send.Close(ctx), b.release())
}
