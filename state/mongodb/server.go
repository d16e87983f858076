package mongodb

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/penstock-io/penstock/fault"
)

// sweepEvery is how often what has expired is deleted on a server that does not
// do it.
const sweepEvery = time.Hour

// Codes of servers' errors.
const (
	badValue           = 2
	unauthorized       = 13
	authFailed         = 18
	commandUnknown     = 59
	cannotCreateIndex  = 67
	indexOptionsDiffer = 85
	indexKeysDiffer    = 86
	unsupported        = 115
	notImplemented     = 238
	atlas              = 8000 // of Atlas, for what is wrong with a login
	tooLarge           = 10334
	tooLargeAfter      = 17419
)

// prepare asks what the server can, and has it delete what has expired. Who may
// not make an index may use one that is there.
func (s *store) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.items.Database().Client().Ping(ctx, nil); err != nil {
		return classify(err)
	}
	_, err := s.items.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: fieldTTL, Value: 1}}, Options: mongooptions.Index().SetExpireAfterSeconds(0)})
	switch {
	case said(err, commandUnknown, cannotCreateIndex, indexOptionsDiffer, indexKeysDiffer, unsupported, notImplemented):
		s.sweeps = true
	case err != nil && !said(err, unauthorized):
		return classify(err)
	}
	s.transactions, err = s.transacts(ctx)
	return classify(err)
}

// transacts tells whether the server has transactions, by one that only reads:
// a server that stands alone refuses it, and one that is not MongoDB may take
// its beginning and not know its end.
func (s *store) transacts(ctx context.Context) (bool, error) {
	err := s.together(ctx, func(ctx context.Context) error {
		err := s.items.FindOne(ctx, bson.D{{Key: fieldID, Value: ""}}).Err()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return nil
		}
		return err
	})
	if _, answered := errors.AsType[mongo.ServerError](err); answered && !said(err, unauthorized) && !mongo.IsTimeout(err) && !mongo.IsNetworkError(err) {
		return false, nil
	}
	return err == nil, err
}

// sweep deletes what has expired.
func (s *store) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.items.DeleteMany(ctx, over(time.Now()))
	return classify(err)
}

// said tells whether a server answered with one of these codes.
func said(err error, codes ...int) bool {
	server, answered := errors.AsType[mongo.ServerError](err)
	for _, code := range codes {
		if answered && server.HasErrorCode(code) {
			return true
		}
	}
	return false
}

// classify gives an error of the library its kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	switch {
	case mongo.IsDuplicateKeyError(err):
		return fault.As(fault.Conflict, err)
	case said(err, unauthorized, authFailed, atlas):
		return fault.As(fault.Denied, err)
	case errors.Is(err, mongo.ErrClientDisconnected), mongo.IsNetworkError(err):
		return fault.As(fault.Unavailable, err)
	case errors.Is(err, context.Canceled):
		return fault.As(fault.Unavailable, err)
	case mongo.IsTimeout(err):
		return fault.As(fault.Timeout, err)
	case said(err, tooLarge, tooLargeAfter, badValue), errors.Is(err, bson.ErrDecodeToNil):
		return fault.As(fault.Invalid, err)
	case strings.Contains(err.Error(), "too large"):
		return fault.As(fault.Invalid, err)
	}
	return fault.As(fault.Unavailable, err)
}
