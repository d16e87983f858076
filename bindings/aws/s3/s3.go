// Package s3 is the binding "bindings.aws.s3": it keeps objects in one bucket of
// S3, or of what speaks its protocol, and brings in what happens to them.
//
// Operations are create, get, delete, list and presign. With queueName it is an
// input too: the bucket's notifications, which S3 writes to that queue of SQS,
// are its events, one for each object, with the object's content if wanted.
//
// Promises: create and delete return when S3 has done it. A notification stays in
// the queue until all of its events were settled; when one of them is to be tried
// again, all of them come again with attempt+1.
package s3

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("aws.s3", component.About{
	Summary: "Keeps objects in a bucket of Amazon S3, and brings in its notifications",
	Ack: "create and delete return when S3 has done it. An event's notification is deleted from its queue when all events of it are settled; " +
		"a retry stays in the queue, hidden for its delay",
	Order: "None between calls; notifications come in no order, those of one key that are here at the same time one after the other",
	Limits: "5 GiB for an object that is made; maxObjectSize for one that is read; 1000 names in a list; 7 days for a presigned address; " +
		"8 contents fetched at a time",
	Scale: "Processes share the queue of notifications; what a killed one held comes to another within visibilityTimeout (30s)",
	Dapr: "It can be an input. Data is written as it comes: a JSON string keeps its quotes. " +
		"An object that is not there is an error of kind not found. bulkGet, bulkCreate and bulkDelete are not there; invoke side by side instead",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: uploads
spec:
  type: bindings.aws.s3
  version: v1
  metadata:
    - name: bucket
      value: uploads
    - name: region
      value: us-east-1
    - name: queueName
      value: uploads-events
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

const (
	opCreate  = "create"
	opGet     = "get"
	opDelete  = "delete"
	opList    = "list"
	opPresign = "presign"
)

func operations() []string { return []string{opCreate, opGet, opDelete, opList, opPresign} }

type options struct {
	client.Options
	Bucket         string         `meta:"bucket,required" doc:"The bucket, which must exist." example:"uploads"`
	ForcePathStyle bool           `meta:"forcePathStyle" doc:"Writes addresses as endpoint/bucket/key instead of bucket.endpoint/key, as most servers other than Amazon's want it."`
	DecodeBase64   bool           `meta:"decodeBase64" doc:"Decodes the data of create from base64. Metadata decodeBase64 says it for one call."`
	EncodeBase64   bool           `meta:"encodeBase64" doc:"Encodes the content that get returns in base64. Metadata encodeBase64 says it for one call."`
	DisableSSL     bool           `meta:"disableSSL" doc:"Speaks HTTP to an endpoint that is given without http:// or https://."`
	InsecureSSL    bool           `meta:"insecureSSL" doc:"Accepts any certificate of the endpoint."`
	StorageClass   string         `meta:"storageClass" doc:"Storage class of objects that are made; the bucket's own when empty. Metadata storageClass says it for one call." example:"STANDARD_IA"`
	MaxObjectSize  component.Size `meta:"maxObjectSize" default:"100Mi" doc:"Largest object that get returns and that comes in with its content."`
	QueueName      string         `meta:"queueName" doc:"Queue of SQS that the bucket writes its notifications to, straight or through a topic of SNS; empty means output only." example:"uploads-events"`
	WithContent    bool           `meta:"withContent" doc:"Fetches the object of an event: its content becomes the event's data instead of the notification."`
	QueueEndpoint  string         `meta:"queueEndpoint" doc:"Address of SQS where it is not that of endpoint." example:"http://localhost:4566"`
	Visibility     time.Duration  `meta:"visibilityTimeout" default:"30s" doc:"How long a notification stays hidden from others after the process that holds it was last heard of; whole seconds from 2s to 12h."`
	WaitTime       time.Duration  `meta:"waitTime" default:"20s" doc:"How long one request waits for notifications; whole seconds from 1s to 20s."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.connection().Check()}
	if o.MaxObjectSize < 1 {
		errs = append(errs, component.OptionErrorf("maxObjectSize", "must be at least 1"))
	}
	if o.WithContent && o.QueueName == "" {
		errs = append(errs, component.OptionErrorf("withContent", "needs queueName: without it nothing comes in"))
	}
	within := func(name string, d, least, most time.Duration) {
		if d < least || d > most || d%time.Second != 0 {
			errs = append(errs, component.OptionErrorf(name, "must be whole seconds from %s to %s", least, most))
		}
	}
	within("visibilityTimeout", o.Visibility, 2*time.Second, queue.MaxDelay)
	within("waitTime", o.WaitTime, time.Second, queue.MaxWait)
	return errors.Join(errs...)
}

// connection returns the options of the connection to S3.
func (o options) connection() client.Options {
	c := o.Options
	if o.DisableSSL && c.Endpoint != "" && !strings.Contains(c.Endpoint, "://") {
		c.Endpoint = "http://" + c.Endpoint
	}
	return c
}

// binding is the output.
type binding struct {
	o       options
	name    string // of the component
	api     *s3.Client
	presign *s3.PresignClient
	calls   *client.Calls
	release func() error
}

// both is a binding with a queue of notifications.
type both struct {
	*binding
	queue   *queue.Queue
	release func() error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	t := client.Transport{Insecure: o.InsecureSSL}
	cfg, release, err := client.Open(ctx, env, o.connection(), t)
	if err != nil {
		return nil, err
	}
	b := &binding{o: o, name: env.Name, calls: client.NewCalls(ctx), release: release}
	b.api = s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = o.ForcePathStyle
		so.EndpointOptions.DisableHTTPS = o.DisableSSL && o.Endpoint == ""
		if o.Endpoint != "" { // others than Amazon's need not know the newer checksums
			so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	b.presign = s3.NewPresignClient(b.api)
	_, err = b.api.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &o.Bucket})
	err = client.Wrap(err, "find bucket %s", o.Bucket)
	if err != nil && (client.BadCredentials(err) || fault.KindOf(err) != fault.Denied) { // who may read an object need not be one who may ask
		return nil, errors.Join(err, release())
	}
	if o.QueueName == "" {
		return b, nil
	}
	return b.listen(ctx, env)
}

// listen opens the queue of notifications.
func (b *binding) listen(ctx context.Context, env component.Env) (*both, error) {
	c := b.o.connection()
	if b.o.QueueEndpoint != "" {
		c.Endpoint = b.o.QueueEndpoint
	}
	cfg, release, err := client.Open(ctx, env, c, client.Transport{Insecure: b.o.InsecureSSL})
	if err != nil {
		return nil, errors.Join(err, b.release())
	}
	api := sqs.NewFromConfig(cfg)
	out, err := api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &b.o.QueueName})
	if err != nil {
		return nil, errors.Join(client.Wrap(err, "find queue %s", b.o.QueueName), release(), b.release())
	}
	return &both{binding: b, release: release, queue: queue.New(ctx, api, aws.ToString(out.QueueUrl), queue.Options{
		Visibility: b.o.Visibility, Wait: b.o.WaitTime, Batch: queue.Entries, Logger: env.Logger,
	})}, nil
}

// Close implements bindings.Driver: it waits for the calls under way until ctx
// ends.
func (b *binding) Close(ctx context.Context) error {
	b.calls.Close(ctx)
	return b.release()
}

// Close also gives back the notifications that are not settled.
func (b *both) Close(ctx context.Context) error {
	return errors.Join(b.queue.Close(ctx), b.binding.Close(ctx), b.release())
}
