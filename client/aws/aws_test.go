package aws

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// asked is a request as the endpoint sees it: who signed it, and what for.
type asked struct{ key, token, action, path, role, session, webToken string }

// endpoint answers for STS and SQS, and keeps what it was asked.
type endpoint struct {
	*httptest.Server
	mu  sync.Mutex
	all []asked
}

func serve(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		key, _, _ := strings.Cut(credential, "/")
		action := r.FormValue("Action")
		if target := r.Header.Get("X-Amz-Target"); target != "" {
			_, action, _ = strings.Cut(target, ".")
		}
		e.mu.Lock()
		e.all = append(e.all, asked{key, r.Header.Get("X-Amz-Security-Token"), action, r.URL.Path, r.FormValue("RoleArn"), r.FormValue("RoleSessionName"), r.FormValue("WebIdentityToken")})
		e.mu.Unlock()
		switch action {
		case "AssumeRole", "AssumeRoleWithWebIdentity":
			fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>LENT</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
				`<SessionToken>lent token</SessionToken><Expiration>%[2]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`, action, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		case "GetCallerIdentity":
			fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
		default:
			fmt.Fprint(w, `{}`)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// last is the latest request for an action.
func (e *endpoint) last(t *testing.T, action string) asked {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.all) - 1; i >= 0; i-- {
		if e.all[i].action == action {
			return e.all[i]
		}
	}
	t.Fatalf("nobody asked for %s: %v", action, e.all)
	return asked{}
}

// bare takes everything away that the chain could find on this machine.
func bare(t *testing.T) (home string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			os.Unsetenv(name) // put back by Setenv's cleanup
		}
	}
	home = t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(home, ".aws", "config")) // the SDK looks for HOME once
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(home, ".aws", "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return home
}

func file(t *testing.T, text string, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// options decodes settings as a component's are.
func options(t *testing.T, settings map[string]string) Options {
	t.Helper()
	got, err := decode(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func decode(ctx context.Context, settings map[string]string) (got Options, err error) {
	open := func(_ context.Context, _ component.Env, o Options) (component.Driver, error) {
		got = o
		return driver{}, nil
	}
	var items []config.Item
	for name, value := range settings {
		items = append(items, config.Item{Name: name, Value: value})
	}
	_, err = component.Define("x", component.About{}, nil, open).Open(ctx, component.Env{Name: "x", Logger: slog.New(slog.DiscardHandler)}, items)
	return got, err
}

type driver struct{}

func (driver) Close(context.Context) error { return nil }

// list asks SQS for its queues with the credentials that the options lead to.
func list(t *testing.T, settings map[string]string) (sdk.Config, error) {
	t.Helper()
	cfg, release, err := Open(t.Context(), component.Env{}, options(t, settings), Transport{})
	if err != nil {
		return cfg, err
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	_, err = sqs.NewFromConfig(cfg).ListQueues(t.Context(), &sqs.ListQueuesInput{})
	return cfg, Wrap(err, "list queues")
}

// chain are the ways to credentials. Each prepares its own, and returns what is
// set in the component.
func chain() map[string]func(t *testing.T, home string) map[string]string {
	role := func(t *testing.T, home string) map[string]string {
		return map[string]string{"accessKey": "OWN", "secretKey": "s", "assumeRoleArn": "arn:aws:iam::123456789012:role/r", "sessionName": "name"}
	}
	return map[string]func(t *testing.T, home string) map[string]string{
		"static": func(*testing.T, string) map[string]string {
			return map[string]string{"accessKey": "STATIC", "secretKey": "s", "sessionToken": "static token"}
		},
		"environment": func(t *testing.T, _ string) map[string]string {
			t.Setenv("AWS_ACCESS_KEY_ID", "ENV")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_SESSION_TOKEN", "env token")
			return nil
		},
		"profile": func(t *testing.T, home string) map[string]string {
			file(t, "[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\n[mine]\naws_access_key_id = PROFILE\naws_secret_access_key = s\n", home, ".aws", "credentials")
			t.Setenv("AWS_PROFILE", "mine")
			return nil
		},
		"profile with a role": func(t *testing.T, home string) map[string]string {
			file(t, "[base]\naws_access_key_id = BASE\naws_secret_access_key = s\n", home, ".aws", "credentials")
			file(t, "[profile mine]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\nrole_session_name = name\n", home, ".aws", "config")
			t.Setenv("AWS_PROFILE", "mine")
			return nil
		},
		"process": func(t *testing.T, home string) map[string]string {
			script := file(t, "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"PROCESS\",\"SecretAccessKey\":\"s\"}'\n", home, "credentials.sh")
			if err := os.Chmod(script, 0o700); err != nil {
				t.Fatal(err)
			}
			file(t, "[default]\ncredential_process = "+script+"\n", home, ".aws", "config")
			return nil
		},
		"role": role,
		"web identity": func(t *testing.T, home string) map[string]string {
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, "the token", home, "token"))
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
			t.Setenv("AWS_ROLE_SESSION_NAME", "name")
			return nil
		},
	}
}

func TestCredentialsComeFromTheChain(t *testing.T) { // not parallel: it sets the environment
	want := map[string]asked{
		"static":              {key: "STATIC", token: "static token"},
		"environment":         {key: "ENV", token: "env token"},
		"profile":             {key: "PROFILE"},
		"profile with a role": {key: "LENT", token: "lent token"},
		"process":             {key: "PROCESS"},
		"role":                {key: "LENT", token: "lent token"},
		"web identity":        {key: "LENT", token: "lent token"},
	}
	lent := map[string]asked{
		"profile with a role": {key: "BASE", action: "AssumeRole"},
		"role":                {key: "OWN", action: "AssumeRole"},
		"web identity":        {action: "AssumeRoleWithWebIdentity", webToken: "the token"},
	}
	for name, prepare := range chain() {
		t.Run(name, func(t *testing.T) {
			e := serve(t)
			settings := map[string]string{"endpoint": e.URL, "region": "eu-west-1"}
			maps.Copy(settings, prepare(t, bare(t)))
			if _, err := list(t, settings); err != nil {
				t.Fatal(err)
			}
			got := e.last(t, "ListQueues")
			if got.key != want[name].key || got.token != want[name].token {
				t.Errorf("signed as %q with the token %q, want %+v", got.key, got.token, want[name])
			}
			w, ok := lent[name]
			if !ok {
				return
			}
			w.path, w.role, w.session = "/", "arn:aws:iam::123456789012:role/r", "name"
			if got := e.last(t, w.action); got != w {
				t.Errorf("borrowed with %+v, want %+v", got, w)
			}
		})
	}
}

func TestRegionComesFromTheOptionTheEnvironmentOrTheProfile(t *testing.T) { // not parallel: it sets the environment
	home := bare(t)
	keys := map[string]string{"accessKey": "A", "secretKey": "s", "endpoint": serve(t).URL}
	region := func(want string) {
		t.Helper()
		if cfg, err := list(t, keys); err != nil || cfg.Region != want {
			t.Errorf("region %q, %v; want %q", cfg.Region, err, want)
		}
	}
	_, err := list(t, keys)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "no region is set: use the option region or AWS_REGION") {
		t.Errorf("without a region: %v", err)
	}
	file(t, "[default]\nregion = sa-east-1\n", home, ".aws", "config")
	region("sa-east-1")
	t.Setenv("AWS_REGION", "eu-west-3")
	region("eu-west-3")
	keys["region"] = "us-west-2"
	region("us-west-2")
}

// A private endpoint of Amazon's serves one service: credentials are lent by STS
// itself.
func TestPrivateEndpointIsNotAskedForCredentials(t *testing.T) { // not parallel: it sets the environment
	bare(t)
	e := serve(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", e.URL)
	settings := map[string]string{
		"endpoint": "https://vpce-1.sqs.us-east-1.vpce.amazonaws.com", "region": "us-east-1", "accessKey": "OWN", "secretKey": "s", "assumeRoleArn": "arn:aws:iam::123456789012:role/r",
	}
	cfg, release, err := Open(t.Context(), component.Env{}, options(t, settings), Transport{})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if got := sdk.ToString(cfg.BaseEndpoint); got != settings["endpoint"] {
		t.Errorf("the service is asked at %q", got)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.last(t, "AssumeRole"); got.key != "OWN" {
		t.Errorf("borrowed with %+v", got)
	}
	account, err := Account(t.Context(), cfg)
	if err != nil || account != "123456789012" {
		t.Errorf("account %q, %v", account, err)
	}
	if got := e.last(t, "GetCallerIdentity"); got.key != "LENT" {
		t.Errorf("asked with %+v", got)
	}
}
