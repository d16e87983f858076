//go:build services

package kinesis

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) {
	url := services.Need(t, "aws")
	api := kinesis.New(kinesis.Options{BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")})
	suite(t, func(t *testing.T) map[string]string {
		name := conform.Unique(t)
		if _, err := api.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: aws.Int32(1)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = api.DeleteStream(context.WithoutCancel(t.Context()), &kinesis.DeleteStreamInput{StreamName: &name})
		})
		exists := kinesis.NewStreamExistsWaiter(api)
		if err := exists.Wait(t.Context(), &kinesis.DescribeStreamInput{StreamName: &name}, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		o := maps.Clone((&awsfake.Server{URL: url}).Options())
		o["streamName"] = name
		return o
	}, func(t *testing.T, o map[string]string, key string) []byte {
		name := aws.String(o["streamName"])
		shards, err := api.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: name})
		if err != nil || len(shards.Shards) != 1 {
			t.Errorf("%v (%v)", shards, err)
			return nil
		}
		at, err := api.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: name, ShardId: shards.Shards[0].ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Error(err)
			return nil
		}
		out, err := api.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: at.ShardIterator})
		if err != nil {
			t.Error(err)
			return nil
		}
		for _, r := range out.Records {
			if aws.ToString(r.PartitionKey) == key {
				return r.Data
			}
		}
		t.Errorf("no record with key %s", key)
		return nil
	})
}
