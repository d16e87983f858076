package aws

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
)

const secret = "hunter2hunter2"

// keys are credentials whose secret no error may tell.
func keys(more map[string]string) map[string]string {
	all := map[string]string{"accessKey": "A", "secretKey": secret, "sessionToken": secret, "region": "us-east-1"}
	maps.Copy(all, more)
	return all
}

func wantError(t *testing.T, err error, kind fault.Kind, words string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if fault.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		t.Errorf("%s error %q, want %s with %q", fault.KindOf(err), err, kind, words)
	}
	if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has a secret or more than a line", err)
	}
}

func TestErrorsHaveKinds(t *testing.T) { // not parallel: it sets the environment
	bare(t)
	s := awsfake.Start(t)
	for _, c := range []struct {
		status int
		code   string
		kind   fault.Kind
	}{
		{403, "SignatureDoesNotMatch", fault.Denied},
		{400, "ExpiredTokenException", fault.Denied},
		{403, "AccessDenied", fault.Denied},
		{400, "AWS.SimpleQueueService.NonExistentQueue", fault.NotFound},
		{400, "ThrottlingException", fault.Exhausted},
		{400, "SomethingElse", fault.Invalid},
		{409, "ConditionalCheckFailedException", fault.Conflict},
		{503, "ServiceUnavailable", fault.Unavailable},
		{500, "SomethingElse", fault.Unavailable},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			s.Fail(func(string) *awsfake.Failure {
				return &awsfake.Failure{Status: c.status, Code: c.code, Message: "why it failed.", Header: map[string]string{"Retry-After": "7"}}
			})
			_, err := list(t, keys(map[string]string{"endpoint": s.URL}))
			wantError(t, err, c.kind, "list queues: ")
			wantError(t, err, c.kind, ": why it failed")
			if got := fault.RetryAfter(err); got != 7*time.Second {
				t.Errorf("retry after %s", got)
			}
		})
	}
}

func TestErrorsOfConnections(t *testing.T) { // not parallel: it sets the environment
	bare(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	_, err = list(t, keys(map[string]string{"endpoint": nobody}))
	wantError(t, err, fault.Unavailable, "connection refused")

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the handshake
	secure.StartTLS()
	defer secure.Close()
	_, err = list(t, keys(map[string]string{"endpoint": secure.URL}))
	wantError(t, err, fault.Unavailable, "certificate")
}

func TestErrorsOfTheChain(t *testing.T) { // not parallel: it sets the environment
	home := bare(t)
	e := serve(t)
	settings := map[string]string{"endpoint": e.URL, "region": "us-east-1"}
	_, err := list(t, settings)
	wantError(t, err, fault.Unavailable, "credentials")

	t.Setenv("AWS_PROFILE", "nowhere")
	_, err = list(t, settings)
	wantError(t, err, fault.Invalid, "nowhere")

	file(t, "[mine]\naws_access_key_id = A\naws_secret_access_key "+secret+"\n", home, ".aws", "credentials")
	t.Setenv("AWS_PROFILE", "mine")
	_, err = list(t, settings)
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a profile with a broken line: %v", err)
	}

	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", home+"/no-token")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
	_, err = list(t, settings)
	wantError(t, err, fault.Unavailable, "no-token")
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings map[string]string
		words    string
	}{
		"a key alone":       {map[string]string{"accessKey": secret}, "secretKey"},
		"a secret alone":    {map[string]string{"secretKey": secret}, "accessKey"},
		"no address":        {map[string]string{"endpoint": "::"}, "endpoint"},
		"another protocol":  {map[string]string{"endpoint": "ftp://host"}, "endpoint"},
		"names of Dapr's":   {map[string]string{"awsAccessKey": "A", "awsSecretKey": "s", "awsSessionToken": "t", "awsRegion": "r"}, ""},
		"older ones":        {map[string]string{"awsAccountID": "A", "awsSecret": "s"}, ""},
		"without a scheme":  {map[string]string{"endpoint": "localhost:4566"}, ""},
		"a trust anchor":    {map[string]string{"trustAnchorArn": "arn:aws:x", "trustProfileArn": "arn:aws:y"}, ""},
		"a role's old name": {map[string]string{"awsIamRoleArn": "arn:aws:iam::1:role/r", "awsStsSessionName": "n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := decode(t.Context(), c.settings)
			switch {
			case c.words == "" && err != nil:
				t.Error(err)
			case c.words != "":
				if err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), secret) {
					t.Errorf("error %v, want one about %s", err, c.words)
				}
			}
		})
	}
}

// A peer that is gone without a word holds up one request and no other.
func TestLateAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			select {
			case <-gone:
			case <-r.Context().Done():
			}
		}
	}))
	defer s.Close()
	defer close(gone)
	transport := impatient{&http.Transport{}, 50 * time.Millisecond}
	defer transport.CloseIdleConnections()
	ask := func(path, target string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", target)
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	err := ask("/late", "AmazonSQS.SendMessageBatch")
	wantError(t, err, fault.Timeout, "no answer within 50ms")
	if err := ask("/", "AmazonSQS.SendMessageBatch"); err != nil {
		t.Error(err)
	}
	for _, target := range []string{"AmazonSQS.ReceiveMessage", ""} { // a long poll, an object
		if err := ask("/late", target); err == nil || strings.Contains(err.Error(), "no answer") {
			t.Errorf("%q: %v, want the end of the caller's time", target, err)
		}
	}
}

func TestSameIdentityIsShared(t *testing.T) {
	t.Parallel()
	env := component.Env{Shared: &component.Shared{}}
	open := func(settings map[string]string) (any, func() error) {
		cfg, release, err := Open(t.Context(), env, options(t, settings), Transport{})
		if err != nil {
			t.Fatal(err)
		}
		return cfg.HTTPClient, release
	}
	one, releaseOne := open(keys(nil))
	two, releaseTwo := open(keys(nil))
	other, releaseOther := open(keys(map[string]string{"secretKey": "another"}))
	if one != two || one == other {
		t.Errorf("clients %p, %p and %p: the first two have one identity", one, two, other)
	}
	for _, release := range []func() error{releaseOne, releaseTwo, releaseOther} {
		if err := release(); err != nil {
			t.Error(err)
		}
	}
}
