package mongodb

import (
	"context"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// alive is the condition that a document has not expired.
func alive(now time.Time) bson.D {
	return bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: fieldTTL, Value: nil}},
		bson.D{{Key: fieldTTL, Value: bson.D{{Key: "$gt", Value: now}}}},
	}}}
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, func(ctx context.Context, c *state.Change) error {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		return classify(s.change(ctx, c))
	})
}

// Transact implements state.Transactor. A transaction that meets another one is
// tried again, as long as an operation may take: it fails when an ETag does not
// hold any more.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return classify(s.together(ctx, func(ctx context.Context) error {
		for i := range changes {
			if err := s.change(ctx, &changes[i]); err != nil {
				return err
			}
		}
		return nil
	}))
}

// together runs do in a transaction, which most of the servers have confirmed
// when it returns, so that no change of the leader undoes it.
func (s *store) together(ctx context.Context, do func(context.Context) error) error {
	session, err := s.items.Database().Client().StartSession()
	if err != nil {
		return err
	}
	defer session.EndSession(ctx)
	journal := true
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) { return nil, do(ctx) },
		mongooptions.Transaction().SetReadConcern(readconcern.Snapshot()).
			SetWriteConcern(&writeconcern.WriteConcern{W: "majority", Journal: &journal}))
	return err
}

// over is the condition that a document has expired.
func over(now time.Time) bson.D {
	return bson.D{{Key: fieldTTL, Value: bson.D{{Key: "$lte", Value: now}}}}
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	now := time.Now()
	which := bson.D{{Key: fieldID, Value: c.Key}}
	if c.ETag != nil {
		which = append(append(which, bson.E{Key: fieldETag, Value: *c.ETag}), alive(now)...)
	}
	if c.Delete {
		res, err := s.items.DeleteOne(ctx, which)
		if err == nil && c.ETag != nil && res.DeletedCount == 0 {
			return fault.New(fault.Conflict, "the item has another ETag, or is not there")
		}
		return err
	}
	doc := s.document(c, now)
	switch {
	case c.ETag != nil:
		res, err := s.items.ReplaceOne(ctx, which, doc)
		if err == nil && res.MatchedCount == 0 {
			return fault.New(fault.Conflict, "the item has another ETag, or is not there")
		}
		return err
	case c.FirstWrite: // what is there and has not expired does not match, and is in the way
		_, err := s.items.ReplaceOne(ctx, append(which, over(now)...), doc, mongooptions.Replace().SetUpsert(true))
		if mongo.IsDuplicateKeyError(err) {
			return fault.New(fault.Conflict, "the item is there already")
		}
		return err
	}
	_, err := s.items.ReplaceOne(ctx, which, doc, mongooptions.Replace().SetUpsert(true))
	if mongo.IsDuplicateKeyError(err) { // another writer made it at the same moment
		_, err = s.items.ReplaceOne(ctx, which, doc, mongooptions.Replace().SetUpsert(true))
	}
	return err
}

// document is what is kept of a change.
func (s *store) document(c *state.Change, now time.Time) bson.D {
	var ttl any
	if c.TTL > 0 {
		ttl = now.Add(state.Whole(c.TTL))
	}
	return bson.D{
		{Key: fieldID, Value: c.Key},
		{Key: fieldValue, Value: encode(c)},
		{Key: fieldETag, Value: uuid.NewString()},
		{Key: fieldTTL, Value: ttl},
	}
}
