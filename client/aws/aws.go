// Package aws makes what the SDK of Amazon Web Services needs to call a
// service: region, endpoint, credentials and one HTTP client for each identity.
//
// A component embeds [Options] in its own and calls [Open] when it is opened;
// the services' clients are made from the configuration that it returns. Errors
// of any service go through [Wrap], which gives them a kind.
//
// Components with the same identity share connections and credentials, which
// are fetched when first needed: nothing is sent while opening. The SDK tries a
// request twice at most, since whoever calls a component tries again by policy.
package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those that every component of AWS has.
type Options struct {
	Region        string            `meta:"region" alias:"awsRegion" doc:"Region of the service; AWS_REGION or the profile's when empty." example:"us-east-1"`
	Endpoint      string            `meta:"endpoint" doc:"Address of the service, for emulators and private endpoints; AWS's own when empty." example:"http://localhost:4566"`
	AccessKey     component.Secret  `meta:"accessKey" alias:"awsAccessKey,awsAccountID" doc:"Access key. Without one the usual chain is asked: environment, profile files, web identity, container, instance." example:"AKIAIOSFODNN7EXAMPLE"`
	SecretKey     component.Secret  `meta:"secretKey" alias:"awsSecretKey,awsSecret" doc:"Secret that belongs to accessKey."`
	SessionToken  component.Secret  `meta:"sessionToken" alias:"awsSessionToken" doc:"Session token of temporary credentials."`
	AssumeRoleArn string            `meta:"assumeRoleArn" alias:"awsIamRoleArn" doc:"Role to take on with the credentials." example:"arn:aws:iam::123456789012:role/orders"`
	SessionName   string            `meta:"sessionName" alias:"assumeRoleSessionName,awsStsSessionName" doc:"Name of the session when a role is taken on." default:"PenstockSession"`
	TrustAnchor   component.Ignored `meta:"trustAnchorArn" doc:"IAM Roles Anywhere needs the identity of Dapr's control plane; use the usual chain with a credential_process."`
	TrustProfile  component.Ignored `meta:"trustProfileArn" doc:"See trustAnchorArn."`
}

// Check implements component.Checker; components with a Check of their own call
// it there.
func (o Options) Check() error {
	var errs []error
	if o.AccessKey.IsZero() != o.SecretKey.IsZero() {
		missing := "secretKey"
		if o.AccessKey.IsZero() {
			missing = "accessKey"
		}
		errs = append(errs, component.OptionErrorf(missing, "is missing: accessKey and secretKey belong together"))
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.address())
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, component.OptionErrorf("endpoint", "%q is not an address such as http://localhost:4566", o.Endpoint))
		}
	}
	return errors.Join(errs...)
}

// address returns the endpoint with a scheme.
func (o Options) address() string {
	if o.Endpoint == "" || strings.Contains(o.Endpoint, "://") {
		return o.Endpoint
	}
	return "https://" + o.Endpoint
}

// identity tells configurations apart.
func (o Options) identity(t Transport) string {
	h := sha256.New()
	for _, s := range []string{
		o.Region, o.address(), o.AccessKey.Reveal(), o.SecretKey.Reveal(), o.SessionToken.Reveal(), o.AssumeRoleArn, o.SessionName,
	} {
		h.Write([]byte(s + "\x00"))
	}
	if t.Insecure {
		h.Write([]byte{1})
	}
	return "aws:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Open returns the configuration of an identity, shared with all components that
// have the same. release must be called once. Kind Invalid: no region is known
// or a profile file is wrong.
func Open(ctx context.Context, env component.Env, o Options, t Transport) (cfg sdk.Config, release func() error, err error) {
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	return component.Share(shared, o.identity(t), func() (sdk.Config, func() error, error) { return load(ctx, o, t) })
}

// attempts is how often the SDK tries one request.
const attempts = 2

func load(ctx context.Context, o Options, t Transport) (sdk.Config, func() error, error) {
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client(t)),
		config.WithRetryer(func() sdk.Retryer {
			return retry.NewStandard(func(so *retry.StandardOptions) {
				so.MaxAttempts = attempts
				so.MaxBackoff = time.Second
			})
		}),
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if a := o.address(); a != "" && !amazons(a) {
		options = append(options, config.WithBaseEndpoint(a))
	}
	if !o.AccessKey.IsZero() {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(o.AccessKey.Reveal(), o.SecretKey.Reveal(), o.SessionToken.Reveal())))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, nil, fault.New(fault.Invalid, "load AWS configuration: %s", oneLine(err.Error()))
	}
	if cfg.Region == "" {
		return cfg, nil, fault.New(fault.Invalid, "load AWS configuration: no region is set: use the option region or AWS_REGION")
	}
	closeIdle := func() {}
	if b, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // with a certificate bundle of the environment in it
		transport := b.GetTransport()
		cfg.HTTPClient = &http.Client{Transport: impatient{transport, shortTimeout}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		closeIdle = transport.CloseIdleConnections
	}
	if o.AssumeRoleArn != "" {
		cfg.Credentials = sdk.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), o.AssumeRoleArn,
			func(ro *stscreds.AssumeRoleOptions) { ro.RoleSessionName = o.SessionName }))
	}
	if a := o.address(); amazons(a) {
		cfg.BaseEndpoint = &a
	}
	return cfg, func() error { closeIdle(); return nil }, nil
}

// amazons tells whether an endpoint is one of Amazon's own, such as that of a
// private network. It serves one service: STS, which lends credentials, is
// somewhere else. An emulator serves all.
func amazons(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn") || strings.HasSuffix(host, ".api.aws")
}

// Partition returns the first part of the ARNs of a region.
func Partition(region string) string {
	for prefix, partition := range map[string]string{"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "eusc-": "aws-eusc"} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return "aws"
}

// Account returns the number of the account that the credentials belong to.
func Account(ctx context.Context, cfg sdk.Config) (string, error) {
	if cfg.BaseEndpoint != nil && amazons(*cfg.BaseEndpoint) {
		cfg.BaseEndpoint = nil
	}
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", Wrap(err, "ask for the account")
	}
	return sdk.ToString(out.Account), nil
}
