package dynamodb

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if ps := Component.Check(items("table", "t", "partitionKey", "id", "ttlAttributeName", "at", "awsRegion", "r")); len(ps) > 0 {
		t.Error(ps)
	}
	for _, bad := range [][]config.Item{
		items(),
		items("table", "t", "partitionKey", "value"),
		items("table", "t", "partitionKey", "etag"),
		items("table", "t", "ttlAttributeName", "key"),
		items("table", "t", "ttlAttributeName", "etag"),
		items("table", "t", "accessKey", "a"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// TestItem reads what Dapr's component writes: text for JSON, bytes for the rest.
func TestItem(t *testing.T) {
	t.Parallel()
	s, now := &store{key: "key", ttl: "at"}, time.Unix(1_700_000_000, 0)
	text := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	number := func(v string) types.AttributeValue { return &types.AttributeValueMemberN{Value: v} }
	type attributes = map[string]types.AttributeValue
	for name, c := range map[string]struct {
		in   attributes
		want state.Item
	}{
		"text":            {attributes{"key": text("k"), "value": text(`{"a":1}`), "etag": text("af3")}, state.Item{Found: true, Value: []byte(`{"a":1}`), ETag: "af3"}},
		"bytes":           {attributes{"key": text("k"), "value": &types.AttributeValueMemberB{Value: []byte{0, 255}}}, state.Item{Found: true, Value: []byte{0, 255}}},
		"to expire":       {attributes{"key": text("k"), "value": text("1"), "at": number("1700000060")}, state.Item{Found: true, Value: []byte("1"), Expires: time.Unix(1_700_000_060, 0)}},
		"expired":         {attributes{"key": text("k"), "value": text("1"), "at": number("1700000000")}, state.Item{}},
		"without a value": {attributes{"key": text("k")}, state.Item{Found: true}},
	} {
		got := s.item(c.in, now)
		if got.Found != c.want.Found || string(got.Value) != string(c.want.Value) || got.ETag != c.want.ETag || !got.Expires.Equal(c.want.Expires) || got.Err != nil {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := s.item(attributes{"value": &types.AttributeValueMemberBOOL{Value: true}}, now); fault.KindOf(got.Err) != fault.Invalid {
		t.Errorf("a value that is a boolean: %+v, want kind invalid", got)
	}
}

func TestCancelledTransactions(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]fault.Kind{
		"ConditionalCheckFailed": fault.Conflict, "TransactionConflict": fault.Unavailable, "ThrottlingError": fault.Exhausted, "ValidationError": fault.Invalid,
	} {
		err := &types.TransactionCanceledException{CancellationReasons: []types.CancellationReason{{Code: aws.String("None")}, {Code: &code}}}
		if got := fault.KindOf(wrap(err, "transaction")); got != want {
			t.Errorf("%s has kind %v, want %v", code, got, want)
		}
	}
}
