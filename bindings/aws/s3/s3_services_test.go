//go:build services

package s3

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) {
	url := services.Need(t, "aws")
	api, queues := objects(url), sqs.NewFromConfig(beside(url))
	suite(t, url, false, func(t *testing.T) map[string]string {
		name := conform.Unique(t)
		q, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
			t.Fatal(err)
		}
		arn := fmt.Sprintf("arn:aws:sqs:%s:%s:%s", awsfake.Region, awsfake.Account, name)
		if _, err := api.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{
			Bucket: &name, NotificationConfiguration: &types.NotificationConfiguration{
				QueueConfigurations: []types.QueueConfiguration{{QueueArn: &arn, Events: []types.Event{types.EventS3ObjectCreated}}},
			},
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = queues.DeleteQueue(context.WithoutCancel(t.Context()), &sqs.DeleteQueueInput{QueueUrl: q.QueueUrl})
		})
		o := maps.Clone((&awsfake.Server{URL: url}).Options())
		o["bucket"], o["queueName"], o["forcePathStyle"], o["withContent"], o["waitTime"], o["visibilityTimeout"] = name, name, "true", "true", "1s", "5s"
		return o
	})
}
