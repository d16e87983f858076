package dynamodb

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// condition is what must hold for a change, in DynamoDB's language; an empty one
// always holds.
type condition struct {
	text   *string
	names  map[string]string
	values map[string]types.AttributeValue
}

// condition reads that of a change. What has expired counts as not there.
func (s *store) condition(c *state.Change, now time.Time) condition {
	if c.ETag == nil && !c.FirstWrite {
		return condition{}
	}
	names, values := map[string]string{}, map[string]types.AttributeValue{}
	var text string
	if c.ETag != nil {
		text = "#etag = :etag"
		names["#etag"], values[":etag"] = attrETag, &types.AttributeValueMemberS{Value: *c.ETag}
	} else {
		text = "attribute_not_exists(#key)"
		names["#key"] = s.key
	}
	if s.ttl != "" {
		names["#ttl"], values[":now"] = s.ttl, &types.AttributeValueMemberN{Value: strconv.FormatInt(now.Unix(), 10)}
		if c.ETag != nil {
			text += " AND (attribute_not_exists(#ttl) OR #ttl > :now)"
		} else {
			text += " OR #ttl <= :now"
		}
	}
	if len(values) == 0 {
		values = nil
	}
	return condition{&text, names, values}
}

// attributes are those of the item that a change saves.
func (s *store) attributes(c *state.Change, now time.Time) map[string]types.AttributeValue {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	item := s.keyOf(c.Key)
	item[attrETag] = &types.AttributeValueMemberS{Value: strconv.FormatUint(binary.LittleEndian.Uint64(random[:]), 16)}
	if c.Binary {
		item[attrValue] = &types.AttributeValueMemberB{Value: c.Value}
	} else {
		item[attrValue] = &types.AttributeValueMemberS{Value: string(c.Value)}
	}
	if c.TTL > 0 && s.ttl != "" {
		item[s.ttl] = &types.AttributeValueMemberN{Value: strconv.FormatInt(now.Add(state.Whole(c.TTL)).Unix(), 10)}
	}
	return item
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	ctx, done, err := s.calls.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return state.ApplyEach(ctx, changes, parallel, s.change)
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	now := time.Now()
	if c.Delete {
		plain := *c
		plain.FirstWrite = false
		on := s.condition(&plain, now)
		_, err := s.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
			TableName: &s.table, Key: s.keyOf(c.Key),
			ConditionExpression: on.text, ExpressionAttributeNames: on.names, ExpressionAttributeValues: on.values,
		})
		return wrap(err, "delete from table %s", s.table)
	}
	on := s.condition(c, now)
	_, err := s.api.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &s.table, Item: s.attributes(c, now),
		ConditionExpression: on.text, ExpressionAttributeNames: on.names, ExpressionAttributeValues: on.values,
	})
	return wrap(err, "save in table %s", s.table)
}

// Transact implements state.Transactor.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	changes, err := state.Final(changes)
	if err != nil {
		return err
	}
	ctx, done, err := s.calls.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	now := time.Now()
	items := make([]types.TransactWriteItem, len(changes))
	for i := range changes {
		c := &changes[i]
		on := s.condition(c, now)
		if c.Delete {
			items[i].Delete = &types.Delete{
				TableName: &s.table, Key: s.keyOf(c.Key),
				ConditionExpression: on.text, ExpressionAttributeNames: on.names, ExpressionAttributeValues: on.values,
			}
			continue
		}
		items[i].Put = &types.Put{
			TableName: &s.table, Item: s.attributes(c, now),
			ConditionExpression: on.text, ExpressionAttributeNames: on.names, ExpressionAttributeValues: on.values,
		}
	}
	_, err = s.api.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items})
	return wrap(err, "transaction in table %s", s.table)
}

// wrap gives an error of DynamoDB its kind. That a transaction met another one
// says nothing about its conditions: it may be tried again.
func wrap(err error, format string, args ...any) error {
	if cancelled, ok := errors.AsType[*types.TransactionCanceledException](err); ok {
		kind := fault.Unavailable
		for _, r := range cancelled.CancellationReasons {
			switch aws.ToString(r.Code) {
			case "ConditionalCheckFailed":
				return fault.New(fault.Conflict, "an item has another ETag, is not there, or is there already")
			case "ValidationError", "ItemCollectionSizeLimitExceeded":
				kind = fault.Invalid
			case "ThrottlingError", "ProvisionedThroughputExceeded":
				kind = fault.Exhausted
			}
		}
		return fault.As(kind, client.Wrap(err, format, args...))
	}
	if _, ok := errors.AsType[*types.ConditionalCheckFailedException](err); ok {
		return fault.New(fault.Conflict, "the item has another ETag, is not there, or is there already")
	}
	return client.Wrap(err, format, args...)
}
