package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// bare is an instance without components.
type bare struct{ pubsubs, cryptos bool }

func (b bare) PubSub(name string) (*pubsub.Bus, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) Binding(name string) (*bindings.Binding, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) SecretStore(name string) (*secrets.Store, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) StateStore(name string) (*state.Store, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) CryptoProvider(name string) (*crypto.Provider, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) Configured(kind string) bool {
	return kind == "pubsub" && b.pubsubs || kind == "crypto" && b.cryptos
}

func (b bare) LockStore(name string) (*lock.Store, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) ConfigurationStore(name string) (*configuration.Store, error) {
	return nil, fault.New(fault.NotFound, "no %s", name)
}

func (b bare) TellApp(context.Context, string, string, []byte) error {
	return fault.New(fault.NotFound, "no app")
}

func (b bare) Background(func(context.Context)) error { return fault.New(fault.NotFound, "no app") }
func (b bare) Logger() *slog.Logger                   { return slog.New(slog.DiscardHandler) }

func (b bare) Snapshot() api.Metadata {
	return api.Metadata{Extended: map[string]string{"ours": "1"}}
}
func (b bare) NotReady() []string      { return nil }
func (b bare) NotOutbound() []string   { return nil }
func (b bare) Shutdown(bool)           {}
func (b bare) Triggers() []api.Trigger { return nil }

func (b bare) RunTrigger(context.Context, string) (string, cloudevents.Outcome, error) {
	return "", cloudevents.Outcome{}, nil
}

func (b bare) Webhooks() []api.Webhook { return nil }

func (b bare) Journal() *journal.Journal { return nil }

func (b bare) DeadLetters() *deadletters.Keeper {
	return deadletters.New(deadletters.Options{App: "shop", Env: component.Env{DataDir: "nowhere"}})
}

func (b bare) Routes() []api.Route { return nil }

func (b bare) Subscribe(_ context.Context, s *api.Stream) error {
	return fault.New(fault.NotFound, "no %s", s.PubSub)
}

func (b bare) PauseRoute(name string) error {
	return fault.New(fault.NotFound, "find route %q: there is none", name)
}
func (b bare) ResumeRoute(name string) error { return b.PauseRoute(name) }

// problemTable has a line for each problem: code, reason, status, gRPC code.
const problemTable = `
ERR_INTERNAL  500 13
ERR_PUBSUB_EMPTY DAPR_PUBSUB_NAME_EMPTY 404 3
ERR_PUBSUB_NOT_FOUND DAPR_PUBSUB_NOT_FOUND 404 3
ERR_PUBSUB_NOT_CONFIGURED DAPR_PUBSUB_NOT_CONFIGURED 400 9
ERR_PUBSUB_FORBIDDEN DAPR_PUBSUB_FORBIDDEN 403 7
ERR_TOPIC_NAME_EMPTY DAPR_PUBSUB_TOPIC_NAME_EMPTY 404 3
ERR_PUBSUB_REQUEST_METADATA DAPR_PUBSUB_METADATA_DESERIALIZATION 400 3
ERR_PUBSUB_CLOUD_EVENTS_SER DAPR_PUBSUB_CLOUD_EVENT_CREATION 500 3
ERR_PUBSUB_PUBLISH_MESSAGE DAPR_PUBSUB_PUBLISH_MESSAGE 500 13
ERR_PUBSUB_SUBSCRIBE  503 14
ERR_PUBSUB_EVENTS_SER DAPR_PUBSUB_UNMARSHAL_EVENTS 400 3
ERR_PUBSUB_EVENTS_SER DAPR_PUBSUB_MARSHAL_EVENTS 400 3
ERR_INVOKE_OUTPUT_BINDING  500 13
ERR_SECRET_STORES_NOT_CONFIGURED  500 9
ERR_SECRET_STORE_NOT_FOUND  401 3
ERR_SECRET_GET  500 13
ERR_PERMISSION_DENIED  403 7
ERR_UNAUTHENTICATED  401 16
ERR_HEALTH_NOT_READY  500 13
ERR_HEALTH_APPID_NOT_MATCH  500 13
ERR_OUTBOUND_HEALTH_NOT_READY  500 13
ERR_BODY_READ  400 3
ERR_MALFORMED_REQUEST  400 3
ERR_BAD_REQUEST  400 3
ERR_LOG_PART_NOT_FOUND  404 5
ERR_ROUTE_NOT_FOUND  404 5
ERR_TRIGGER_NOT_FOUND  404 5
ERR_TRIGGER_BUSY  409 10
ERR_TRIGGER_NOT_READ  503 14
ERR_EVENT_SELECTION  400 3
ERR_LIMIT_REACHED  429 8
ERR_API_UNIMPLEMENTED  501 12
ERR_NOT_FOUND  404 5
ERR_METHOD_NOT_ALLOWED  405 12
ERR_API_DENIED  404 12
ERR_DEAD_LETTER_NOT_FOUND  404 5
ERR_DEAD_LETTER_SELECTION  400 3
ERR_DEAD_LETTER_STORE  503 14
ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED  500 13
ERR_CRYPTO_PROVIDER_NOT_FOUND  400 3
ERR_CRYPTO  500 13
ERR_STATE_STORE_NOT_CONFIGURED DAPR_STATE_NOT_CONFIGURED 500 9
ERR_STATE_STORE_NOT_FOUND DAPR_STATE_NOT_FOUND 400 3
ERR_MALFORMED_REQUEST DAPR_STATE_ILLEGAL_KEY 400 3
ERR_STATE_GET  500 13
ERR_STATE_BULK_GET  500 13
ERR_STATE_SAVE  500 13
ERR_STATE_SAVE  400 3
ERR_STATE_SAVE  409 10
ERR_STATE_DELETE  500 13
ERR_STATE_DELETE  400 3
ERR_STATE_DELETE  409 10
ERR_STATE_BULK_DELETE  500 13
ERR_STATE_BULK_DELETE  400 3
ERR_STATE_BULK_DELETE  409 10
ERR_STATE_TRANSACTION  500 13
ERR_STATE_STORE_NOT_SUPPORTED DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED 500 12
ERR_STATE_STORE_TOO_MANY_TRANSACTIONS DAPR_STATE_TOO_MANY_TRANSACTIONS 400 3
ERR_NOT_SUPPORTED_STATE_OPERATION  400 12
ERR_STATE_STORE_NOT_SUPPORTED  500 12
ERR_STATE_QUERY DAPR_STATE_QUERY_FAILED 500 13
ERR_STATE_STORE_NOT_SUPPORTED DAPR_STATE_QUERYING_NOT_SUPPORTED 500 12
ERR_LOCK_STORE_NOT_CONFIGURED  500 9
ERR_LOCK_STORE_NOT_FOUND  400 3
ERR_TRY_LOCK  500 13
ERR_RENEW_LOCK  500 13
ERR_UNLOCK  500 13
ERR_CONFIGURATION_STORE_NOT_CONFIGURED  500 9
ERR_CONFIGURATION_STORE_NOT_FOUND  400 3
ERR_CONFIGURATION_GET  500 13
ERR_CONFIGURATION_SUBSCRIBE  500 3
ERR_CONFIGURATION_UNSUBSCRIBE  500 13
ERR_APP_CHANNEL_NIL  500 13
ERR_DIRECT_INVOKE  404 5
ERR_DIRECT_INVOKE  400 3
ERR_DIRECT_INVOKE  403 7
ERR_DIRECT_INVOKE  500 13
ERR_DIRECT_INVOKE  501 12
ERR_DIRECT_INVOKE  500 14
ERR_INTERNAL  500 13
`

// The table, as the contract has it.
func TestProblems(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	got.WriteByte('\n')
	for p := range api.InvokeUnreached + 2 {
		fmt.Fprintln(&got, p.Code(), p.Reason(), p.HTTPStatus(), p.GRPCCode())
	}
	if diff := cmp.Diff(problemTable, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	t.Parallel()
	cause := fault.New(fault.Exhausted, "too much")
	tests := []struct {
		err  error
		want fault.Kind
	}{
		{api.Errorf(api.PubSubNotFound, "no bus"), fault.NotFound},
		{api.Errorf(api.PublishMessage, "publish: %w", cause), fault.Exhausted},
		{api.AsError(cause), fault.Exhausted},
		{api.AsError(fmt.Errorf("serve: %w", api.Errorf(api.Malformed, "no json"))), fault.Invalid},
		{fmt.Errorf("serve: %w", api.Errorf(api.PermissionDenied, "no")), fault.Denied},
	}
	for _, tt := range tests {
		if got := fault.KindOf(tt.err); got != tt.want {
			t.Errorf("%v: kind %v, want %v", tt.err, got, tt.want)
		}
	}
	if got := api.AsError(errors.New("surprise")).Problem; got != api.Internal {
		t.Errorf("unknown error is problem %v", got)
	}
}

func TestVerbsWithoutComponents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tests := []struct {
		name string
		rt   bare
		do   func(*api.API) error
		want api.Problem
	}{
		{"publish", bare{}, func(a *api.API) error {
			return a.Publish(ctx, "bus", &pubsub.PublishRequest{Topic: "t"})
		}, api.PubSubNotConfigured},
		{"publish elsewhere", bare{pubsubs: true}, func(a *api.API) error {
			return a.Publish(ctx, "bus", &pubsub.PublishRequest{Topic: "t"})
		}, api.PubSubNotFound},
		{"publish to no name", bare{}, func(a *api.API) error {
			return a.Publish(ctx, "", &pubsub.PublishRequest{Topic: "t"})
		}, api.PubSubEmpty},
		{"bulk", bare{}, func(a *api.API) error {
			_, err := a.BulkPublish(ctx, &api.Bulk{PubSub: "bus", Topic: "t"})
			return err
		}, api.PubSubNotConfigured},
		{"binding", bare{}, func(a *api.API) error {
			_, err := a.InvokeBinding(ctx, &api.Binding{Name: "x"})
			return err
		}, api.InvokeBinding},
		{"secret", bare{}, func(a *api.API) error {
			_, err := a.GetSecret(ctx, "x", "y", nil)
			return err
		}, api.SecretNotConfigured},
		{"secrets", bare{}, func(a *api.API) error {
			_, err := a.BulkSecrets(ctx, "x", nil)
			return err
		}, api.SecretNotConfigured},
		{"encrypt", bare{}, func(a *api.API) error {
			_, err := a.Encrypt(ctx, "x", &crypto.Request{}, strings.NewReader(""))
			return err
		}, api.CryptoNotConfigured},
		{"decrypt", bare{}, func(a *api.API) error {
			_, err := a.Decrypt(ctx, "x", "", strings.NewReader(""))
			return err
		}, api.CryptoNotConfigured},
		{"decrypt elsewhere", bare{cryptos: true}, func(a *api.API) error {
			_, err := a.Decrypt(ctx, "x", "", strings.NewReader(""))
			return err
		}, api.CryptoNotFound},
		{"health of another app", bare{}, func(a *api.API) error { return a.Health("other") }, api.HealthAppID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, ok := errors.AsType[*api.Error](tt.do(api.New("shop", tt.rt)))
			if !ok || e.Problem != tt.want || e.Message == "" {
				t.Errorf("%#v, want problem %s", e, tt.want.Code())
			}
		})
	}
}

func TestSetMetadataBounds(t *testing.T) {
	t.Parallel()
	a := api.New("shop", bare{})
	long := strings.Repeat("x", api.MaxExtendedKey+1)
	for _, tt := range []struct{ name, key, value string }{
		{"empty key", "", "x"},
		{"long key", long, "x"},
		{"long value", "key", strings.Repeat("x", api.MaxExtendedValue+1)},
		{"version", api.VersionKey, "x"},
		{"key of the instance", "ours", "x"},
	} {
		if e, ok := errors.AsType[*api.Error](a.SetMetadata(tt.key, tt.value)); !ok || e.Problem != api.BadRequest {
			t.Errorf("%s: %v", tt.name, e)
		}
	}
	var wg sync.WaitGroup
	for i := range api.MaxExtended {
		wg.Go(func() {
			if err := a.SetMetadata(fmt.Sprint("key", i), strings.Repeat("x", api.MaxExtendedValue)); err != nil {
				t.Error(err)
			}
			_ = a.Metadata()
		})
	}
	wg.Wait()
	if e, ok := errors.AsType[*api.Error](a.SetMetadata("one more", "x")); !ok || e.Problem != api.LimitReached {
		t.Errorf("one entry too many: %v", e)
	}
	if err := a.SetMetadata("key0", "changed"); err != nil {
		t.Errorf("changing an entry when full: %v", err)
	}
	m := a.Metadata()
	if m.Extended["key0"] != "changed" || m.Extended["ours"] != "1" || len(m.Extended) != api.MaxExtended+1 || m.ID != "shop" {
		t.Errorf("%d entries, key0 %q, id %q", len(m.Extended), m.Extended["key0"], m.ID)
	}
	m.Extended["key0"] = "mine"
	if a.Metadata().Extended["key0"] != "changed" {
		t.Error("the caller does not own the result")
	}
}

// An error is the same on every protocol; over HTTP it is this body.
func ExampleError() {
	err := api.New("shop", bare{pubsubs: true}).Publish(context.Background(), "bus", &pubsub.PublishRequest{Topic: "orders"})
	e := api.AsError(err)
	body, _ := json.MarshalIndent(e, "", "  ")
	fmt.Println(e.Problem.HTTPStatus(), string(body))
	// Output:
	// 404 {
	//   "errorCode": "ERR_PUBSUB_NOT_FOUND",
	//   "message": "pubsub bus is not found",
	//   "details": [
	//     {
	//       "@type": "type.googleapis.com/google.rpc.ErrorInfo",
	//       "reason": "DAPR_PUBSUB_NOT_FOUND",
	//       "domain": "dapr.io",
	//       "metadata": {}
	//     }
	//   ]
	// }
}
