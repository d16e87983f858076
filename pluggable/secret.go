package pluggable

import (
	"context"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/secrets"
)

const secretService = "dapr.proto.components.v1.SecretStore"

// secretStore is a secret store of a program.
type secretStore struct{ *link }

func openSecrets(path string) func(context.Context, component.Env, map[string]string) (secrets.Driver, error) {
	return func(ctx context.Context, env component.Env, options map[string]string) (secrets.Driver, error) {
		asked := false
		l, err := openLink(ctx, path, env, func(ctx context.Context, conn *grpc.ClientConn) error {
			if !asked { // a later process must serve the same
				if _, err := serves(ctx, conn, secretService); err != nil {
					return err
				}
				asked = true
			}
			_, err := components.NewSecretStoreClient(conn).Init(ctx, &components.SecretStoreInitRequest{Metadata: &components.MetadataRequest{Properties: options}})
			return failed(err, "init secret store")
		})
		if err != nil {
			return nil, err
		}
		return secretStore{l}, nil
	}
}

// Get implements [secrets.Driver].
func (s secretStore) Get(ctx context.Context, key string, metadata map[string]string) (map[string]string, error) {
	c, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	r, err := components.NewSecretStoreClient(c).Get(ctx, &components.GetSecretRequest{Key: key, Metadata: metadata})
	if err != nil {
		return nil, failed(err, "get secret")
	}
	return r.GetData(), nil
}

// Bulk implements [secrets.Driver].
func (s secretStore) Bulk(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	c, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	r, err := components.NewSecretStoreClient(c).BulkGet(ctx, &components.BulkGetSecretRequest{Metadata: metadata})
	if err != nil {
		return nil, failed(err, "get all secrets")
	}
	all := make(map[string]map[string]string, len(r.GetData()))
	for key, pairs := range r.GetData() {
		all[key] = pairs.GetSecrets()
	}
	return all, nil
}

func secretsAbout(name string) component.About {
	return component.About{
		Summary: "The pluggable secret store behind the socket " + name,
		Limits:  "Answers of 16 MiB.",
		Scale:   "The component's",
		Dapr:    "Init comes again when the component's process does; secrets that components use are read again each rotationInterval",
		Example: example("secretstores", name),
	}
}
