//go:build services

package secretsmanager

import (
	"fmt"
	"testing"
	"time"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	o := client.Options{
		Endpoint: services.Need(t, "aws"), Region: "us-east-1", AccessKey: component.NewSecret("key"), SecretKey: component.NewSecret("secret"),
	}
	cfg, release, err := client.Open(t.Context(), component.Env{}, o, client.Transport{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release() })
	s := client.NewJSONService(cfg, "secretsmanager", "secretsmanager")
	db := fmt.Sprintf("orders-%d/db", time.Now().UnixNano())
	var made struct{ ARN, VersionId string }
	if err := s.Call(t.Context(), "CreateSecret", map[string]string{"Name": db, "SecretString": "one", "ClientRequestToken": "00000000-0000-0000-0000-000000000001"}, &made, "make secret"); err != nil {
		t.Fatal(err)
	}
	if err := s.Call(t.Context(), "PutSecretValue", map[string]string{"SecretId": db, "SecretString": "ä\n2", "ClientRequestToken": "00000000-0000-0000-0000-000000000002"}, &struct{}{}, "change secret"); err != nil {
		t.Fatal(err)
	}
	options := map[string]string{"endpoint": o.Endpoint, "region": o.Region, "accessKey": "key", "secretKey": "secret"}
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(*testing.T) map[string]string { return options },
		Want:    map[string]map[string]string{db: {db: "ä\n2"}},
		Missing: "nothing",
	})
	d := opened(t, options)
	for _, metadata := range []map[string]string{{"version_id": made.VersionId}, {"version_stage": "AWSPREVIOUS"}} {
		if got, err := d.Get(t.Context(), db, metadata); err != nil || got[db] != "one" {
			t.Errorf("%v: %v, %v", metadata, got, err)
		}
	}
	if got, err := d.Get(t.Context(), made.ARN, nil); err != nil || got[made.ARN] != "ä\n2" {
		t.Errorf("by ARN: %v, %v", got, err)
	}
}
