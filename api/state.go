package api

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// GetState reads one item; one that is not there is the zero item.
func (a *API) GetState(ctx context.Context, store, key string, r state.Read) (state.Item, error) {
	s, err := a.stateStore(store)
	if err != nil {
		return state.Item{}, err
	}
	it, err := s.Get(ctx, key, r)
	if err != nil {
		return it, stateError(store, err, alike(StateGet))
	}
	return it, nil
}

// BulkGetState reads many items and returns one for each key, in their order;
// an item that alone could not be read has Err.
func (a *API) BulkGetState(ctx context.Context, store string, keys []string, r state.Read) ([]state.Item, error) {
	s, err := a.stateStore(store)
	if err != nil {
		return nil, err
	}
	items, err := s.GetMany(ctx, keys, r)
	if err != nil {
		return nil, stateError(store, err, alike(StateBulkGet))
	}
	return items, nil
}

// SaveState saves values, each by itself.
func (a *API) SaveState(ctx context.Context, store string, changes []state.Change) error {
	return a.applyState(ctx, store, changes, [3]Problem{StateSave, StateSaveInvalid, StateSaveConflict})
}

// DeleteState deletes one item.
func (a *API) DeleteState(ctx context.Context, store string, c state.Change) error {
	c.Delete = true
	return a.applyState(ctx, store, []state.Change{c}, [3]Problem{StateDelete, StateDeleteInvalid, StateDeleteConflict})
}

// BulkDeleteState deletes items, each by itself.
func (a *API) BulkDeleteState(ctx context.Context, store string, changes []state.Change) error {
	for i := range changes {
		changes[i].Delete = true
	}
	return a.applyState(ctx, store, changes, [3]Problem{StateBulkDelete, StateBulkDeleteInvalid, StateBulkDeleteConflict})
}

func (a *API) applyState(ctx context.Context, store string, changes []state.Change, ps [3]Problem) error {
	s, err := a.stateStore(store)
	if err != nil {
		return err
	}
	if err := s.Apply(ctx, changes); err != nil {
		return stateError(store, err, ps)
	}
	return nil
}

// TransactState carries out all changes, in order, or none. With an outbox, what
// is saved is published under the trace.
func (a *API) TransactState(ctx context.Context, store string, changes []state.Change, tr Trace) error {
	s, err := a.stateStore(store)
	if err != nil {
		return err
	}
	if err := s.Transact(ctx, changes, tr.Parent); err != nil {
		if errors.Is(err, state.ErrNoTransactions) {
			return Errorf(StateNoTransactions, "transaction in %s: state store %s has no transactions", store, store).on("state", store)
		}
		return stateError(store, err, alike(StateTransaction))
	}
	return nil
}

// StateMetadata is what apps are told of an item beside its value; nil when
// there is nothing.
func StateMetadata(it *state.Item) map[string]string {
	if it.Expires.IsZero() {
		return nil
	}
	return map[string]string{"ttlExpireTime": it.Expires.UTC().Format(time.RFC3339)}
}

// StateKeys lists keys of the app that begin with prefix, at most limit of them,
// and a token for the rest, empty at the end.
func (a *API) StateKeys(ctx context.Context, store, prefix, token string, limit int) (keys []string, next string, err error) {
	s, err := a.stateStore(store)
	if err != nil {
		return nil, "", err
	}
	keys, next, err = s.Keys(ctx, prefix, token, limit)
	switch {
	case errors.Is(err, state.ErrNoList):
		return nil, "", Errorf(StateNoKeys, "list keys of %s: %w", store, err).on("state", store)
	case err != nil:
		return nil, "", stateError(store, err, alike(StateGet))
	}
	return keys, next, nil
}

// QueryState returns a page of the items that a query in JSON asks for.
func (a *API) QueryState(ctx context.Context, store string, query []byte, metadata map[string]string) (state.Page, error) {
	s, err := a.stateStore(store)
	if err != nil {
		return state.Page{}, err
	}
	q, err := state.ParseQuery(query)
	if err != nil {
		return state.Page{}, wrap(Malformed, err)
	}
	page, err := s.Query(ctx, q, metadata)
	switch {
	case errors.Is(err, state.ErrNoQueries):
		return state.Page{}, Errorf(StateNoQueries, "query %s: state store %s has no queries", store, store).on("state", store)
	case err != nil:
		return state.Page{}, stateError(store, err, alike(StateQuery))
	}
	return page, nil
}

func (a *API) stateStore(name string) (*state.Store, error) {
	if !a.rt.Configured("state") {
		return nil, Errorf(StateNotConfigured, "use state store %q: no state store is loaded", name).with("appID", a.app)
	}
	s, err := a.rt.StateStore(name)
	if err != nil {
		return nil, Errorf(StateNotFound, "use state store %q: %w", name, err).with("appID", a.app)
	}
	return s, nil
}

// alike is one problem for errors of every kind.
func alike(p Problem) [3]Problem { return [3]Problem{p, p, p} }

// stateError makes err the problem for its kind: any, Invalid, Conflict. An
// illegal key is a problem of its own.
func stateError(store string, err error, ps [3]Problem) *Error {
	p := ps[0]
	if tooMany, ok := errors.AsType[*state.TooManyError](err); ok {
		return Errorf(StateTooMany, "transaction in %s: %w", store, tooMany).on("state", store).
			with("currentOpsTransaction", strconv.Itoa(tooMany.Changes)).with("maxOpsPerTransaction", strconv.Itoa(tooMany.Most))
	}
	switch kind := fault.KindOf(err); {
	case errors.Is(err, state.ErrKey):
		p = StateKey
	case kind == fault.Invalid:
		p = ps[1]
	case kind == fault.Conflict:
		p = ps[2]
	}
	return wrap(p, err).on("state", store)
}

// stateRow is the part of the table about state.
func stateRow(p Problem) row {
	return map[Problem]row{
		StateNotConfigured:      {"ERR_STATE_STORE_NOT_CONFIGURED", "DAPR_STATE_NOT_CONFIGURED", 500, grpcFailedPrecondition, fault.NotFound},
		StateNotFound:           {"ERR_STATE_STORE_NOT_FOUND", "DAPR_STATE_NOT_FOUND", 400, grpcInvalidArgument, fault.NotFound},
		StateKey:                {"ERR_MALFORMED_REQUEST", "DAPR_STATE_ILLEGAL_KEY", 400, grpcInvalidArgument, fault.Invalid},
		StateGet:                {"ERR_STATE_GET", "", 500, grpcInternal, fault.Internal},
		StateBulkGet:            {"ERR_STATE_BULK_GET", "", 500, grpcInternal, fault.Internal},
		StateSave:               {"ERR_STATE_SAVE", "", 500, grpcInternal, fault.Internal},
		StateSaveInvalid:        {"ERR_STATE_SAVE", "", 400, grpcInvalidArgument, fault.Invalid},
		StateSaveConflict:       {"ERR_STATE_SAVE", "", 409, grpcAborted, fault.Conflict},
		StateDelete:             {"ERR_STATE_DELETE", "", 500, grpcInternal, fault.Internal},
		StateDeleteInvalid:      {"ERR_STATE_DELETE", "", 400, grpcInvalidArgument, fault.Invalid},
		StateDeleteConflict:     {"ERR_STATE_DELETE", "", 409, grpcAborted, fault.Conflict},
		StateBulkDelete:         {"ERR_STATE_BULK_DELETE", "", 500, grpcInternal, fault.Internal},
		StateBulkDeleteInvalid:  {"ERR_STATE_BULK_DELETE", "", 400, grpcInvalidArgument, fault.Invalid},
		StateBulkDeleteConflict: {"ERR_STATE_BULK_DELETE", "", 409, grpcAborted, fault.Conflict},
		StateTransaction:        {"ERR_STATE_TRANSACTION", "", 500, grpcInternal, fault.Internal},
		StateNoTransactions:     {"ERR_STATE_STORE_NOT_SUPPORTED", "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", 500, grpcUnimplemented, fault.Invalid},
		StateTooMany:            {"ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", "DAPR_STATE_TOO_MANY_TRANSACTIONS", 400, grpcInvalidArgument, fault.Invalid},
		StateOperation:          {"ERR_NOT_SUPPORTED_STATE_OPERATION", "", 400, grpcUnimplemented, fault.Invalid},
		StateNoKeys:             {"ERR_STATE_STORE_NOT_SUPPORTED", "", 500, grpcUnimplemented, fault.Invalid},
		StateQuery:              {"ERR_STATE_QUERY", "DAPR_STATE_QUERY_FAILED", 500, grpcInternal, fault.Internal},
		StateNoQueries:          {"ERR_STATE_STORE_NOT_SUPPORTED", "DAPR_STATE_QUERYING_NOT_SUPPORTED", 500, grpcUnimplemented, fault.Invalid},
	}[p]
}
