//go:build services

package aws

import (
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/services"
)

// TestChainOnServer asks STS who it takes us for, by every way to credentials.
func TestChainOnServer(t *testing.T) { // not parallel: it sets the environment
	lent := map[string]bool{"role": true, "profile with a role": true, "web identity": true}
	for name, prepare := range chain() {
		t.Run(name, func(t *testing.T) {
			settings := map[string]string{"endpoint": services.Need(t, "aws"), "region": "us-east-1"}
			for k, v := range prepare(t, bare(t)) {
				settings[k] = v
			}
			cfg, release, err := Open(t.Context(), component.Env{}, options(t, settings), Transport{})
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			out, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if err != nil {
				t.Fatal(Wrap(err, "ask who we are"))
			}
			if got := sdk.ToString(out.Arn); strings.HasSuffix(got, ":assumed-role/r/name") != lent[name] {
				t.Errorf("taken for %s", got)
			}
			account, err := Account(t.Context(), cfg)
			if err != nil || account != "123456789012" {
				t.Errorf("account %q, %v", account, err)
			}
		})
	}
}
