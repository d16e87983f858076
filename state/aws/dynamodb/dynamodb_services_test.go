//go:build services

package dynamodb

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func bare(url string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")})
}

// table makes a table and returns the options that lead to it.
func table(t *testing.T, url string) map[string]string {
	t.Helper()
	name, api := conform.Unique(t), bare(url)
	if _, err := api.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("key"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("key"), AttributeType: types.ScalarAttributeTypeS}},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = api.DeleteTable(context.WithoutCancel(t.Context()), &dynamodb.DeleteTableInput{TableName: &name})
	})
	o := maps.Clone((&awsfake.Server{URL: url}).Options())
	o["table"], o["ttlAttributeName"] = name, "expiresAt"
	return o
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	url := services.Need(t, "aws")
	conform.State(t, Component, conform.StateSetup{
		Options: func(t *testing.T) map[string]string { return table(t, url) },
		Wrong: map[string]map[string]string{
			"partitionKey":     {"partitionKey": "etag"},
			"ttlAttributeName": {"ttlAttributeName": "value"},
			"secretKey":        {"secretKey": ""},
		},
		MaxValue: 390 << 10,
	})
}

func opened(t *testing.T, o map[string]string) (*store, error) {
	t.Helper()
	var items []config.Item
	for _, name := range slices.Sorted(maps.Keys(o)) {
		items = append(items, config.Item{Name: name, Value: o[name]})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(*store), nil
}

// TestLayout holds the items to Dapr's.
func TestLayout(t *testing.T) {
	url := services.Need(t, "aws")
	o := table(t, url)
	s, err := opened(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), []state.Change{
		{Key: "app||json", Value: []byte(`{"a":1}`), TTL: time.Hour},
		{Key: "app||bytes", Value: []byte{0, 255}, Binary: true},
	}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]types.AttributeValue{
		"app||json": &types.AttributeValueMemberS{Value: `{"a":1}`}, "app||bytes": &types.AttributeValueMemberB{Value: []byte{0, 255}},
	} {
		out, err := bare(url).GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String(o["table"]), Key: s.keyOf(key)})
		if err != nil {
			t.Fatal(err)
		}
		etag, _ := out.Item["etag"].(*types.AttributeValueMemberS)
		if etag == nil || len(out.Item) != map[bool]int{true: 4, false: 3}[key == "app||json"] {
			t.Fatalf("%s is %v", key, out.Item)
		}
		if _, err := strconv.ParseUint(etag.Value, 16, 64); err != nil {
			t.Errorf("%s has the ETag %q", key, etag.Value)
		}
		switch want := want.(type) {
		case *types.AttributeValueMemberS:
			if got, ok := out.Item["value"].(*types.AttributeValueMemberS); !ok || got.Value != want.Value {
				t.Errorf("%s is %v", key, out.Item["value"])
			}
		case *types.AttributeValueMemberB:
			if got, ok := out.Item["value"].(*types.AttributeValueMemberB); !ok || string(got.Value) != string(want.Value) {
				t.Errorf("%s is %v", key, out.Item["value"])
			}
		}
	}
}

func TestWrongTableAndTooLarge(t *testing.T) {
	url := services.Need(t, "aws")
	o := table(t, url)
	s, err := opened(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: make([]byte, 500<<10), Binary: true}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("save of 500 KiB: %v, want kind invalid", err)
	}
	o["table"] = "there-is-none"
	if _, err := opened(t, o); fault.KindOf(err) != fault.NotFound {
		t.Errorf("open of a table that is not there: %v, want kind not found", err)
	}
}
