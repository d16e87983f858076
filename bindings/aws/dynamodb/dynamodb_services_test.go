//go:build services

package dynamodb

import (
	"context"
	"maps"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) {
	url := services.Need(t, "aws")
	api := dynamodb.New(dynamodb.Options{BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")})
	suite(t, func(t *testing.T) map[string]string {
		name := conform.Unique(t)
		if _, err := api.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: &name, BillingMode: types.BillingModePayPerRequest,
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = api.DeleteTable(context.WithoutCancel(t.Context()), &dynamodb.DeleteTableInput{TableName: &name})
		})
		o := maps.Clone((&awsfake.Server{URL: url}).Options())
		o["table"] = name
		return o
	}, func(t *testing.T, o map[string]string, id string) string {
		out, err := api.GetItem(t.Context(), &dynamodb.GetItemInput{
			TableName: aws.String(o["table"]), Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}},
		})
		if err != nil {
			t.Error(err)
			return ""
		}
		if body, ok := out.Item["body"].(*types.AttributeValueMemberS); ok {
			return body.Value
		}
		return ""
	})
}
