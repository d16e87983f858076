//go:build services

package parameterstore

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
	s := client.NewJSONService(cfg, "ssm", "AmazonSSM")
	prefix := fmt.Sprintf("/orders-%d/", time.Now().UnixNano())
	want := map[string]map[string]string{}
	for i := range 23 {
		key := fmt.Sprintf("db/p%d", i)
		want[key] = map[string]string{key: fmt.Sprint("ä", i)}
		for _, value := range []string{"old", fmt.Sprint("ä", i)} {
			in := map[string]any{"Name": prefix + key, "Value": value, "Type": "SecureString", "Overwrite": true}
			if err := s.Call(t.Context(), "PutParameter", in, &struct{}{}, "make parameter"); err != nil {
				t.Fatal(err)
			}
		}
	}
	options := map[string]string{"endpoint": o.Endpoint, "region": o.Region, "accessKey": "key", "secretKey": "secret", "prefix": prefix}
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(*testing.T) map[string]string { return options },
		Want:    map[string]map[string]string{"db/p1": want["db/p1"], "db/p22": want["db/p22"]},
		Missing: "nothing",
	})
	d := opened(t, options)
	if got, err := d.Get(t.Context(), "db/p1", map[string]string{"version_id": "1"}); err != nil || got["db/p1"] != "old" {
		t.Errorf("the first version: %v, %v", got, err)
	}
	if all, err := d.Bulk(t.Context(), nil); err != nil || len(all) != len(want) {
		t.Errorf("bulk: %d, %v", len(all), err)
	}
}
