package api

import (
	"context"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// GetSecret returns one secret of a store: usually one pair whose name is key.
// The metadata goes to the store, which may know a version in it or a namespace.
func (a *API) GetSecret(ctx context.Context, store, key string, metadata map[string]string) (map[string]string, error) {
	s, err := a.secretStore(store)
	if err != nil {
		return nil, err
	}
	pairs, err := s.Get(ctx, key, metadata)
	if err != nil {
		return nil, secretError(store, err)
	}
	return pairs, nil
}

// BulkSecrets returns every secret of a store that the app may read.
func (a *API) BulkSecrets(ctx context.Context, store string, metadata map[string]string) (map[string]map[string]string, error) {
	s, err := a.secretStore(store)
	if err != nil {
		return nil, err
	}
	all, err := s.Bulk(ctx, metadata)
	if err != nil {
		return nil, secretError(store, err)
	}
	return all, nil
}

func (a *API) secretStore(name string) (*secrets.Store, error) {
	if !a.rt.Configured("secretstores") {
		return nil, Errorf(SecretNotConfigured, "get secret: no secret store is loaded").on("secretstore", name)
	}
	s, err := a.rt.SecretStore(name)
	if err != nil {
		return nil, Errorf(SecretNotFound, "get secret: store %q: %w", name, err).on("secretstore", name)
	}
	return s, nil
}

func secretError(store string, err error) *Error {
	p := SecretGet
	if fault.KindOf(err) == fault.Denied {
		p = PermissionDenied
	}
	return wrap(p, err).on("secretstore", store)
}
