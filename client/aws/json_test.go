package aws

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/penstock-io/penstock/fault"
)

func TestEndpointsOfAJSONService(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"us-east-1": "https://ssm.us-east-1.amazonaws.com/", "cn-north-1": "https://ssm.cn-north-1.amazonaws.com.cn/",
		"us-gov-west-1": "https://ssm.us-gov-west-1.amazonaws.com/", "eusc-de-east-1": "https://ssm.eusc-de-east-1.amazonaws.eu/",
	} {
		if got := NewJSONService(sdk.Config{Region: region}, "ssm", "AmazonSSM").endpoint; got != want {
			t.Errorf("%s: %s, want %s", region, got, want)
		}
	}
}

func TestCallsOfAJSONService(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		status     int
		header     string
		body       string
		kind       fault.Kind
		text       string
		credential bool // whether it tells that the credentials are wrong
	}{
		"kind in the body":   {400, "", `{"__type":"com.amazonaws.ssm#ParameterNotFound"}`, fault.NotFound, "ParameterNotFound", false},
		"kind in the header": {400, "ResourceNotFoundException:http://x", `{"Message":"no such thing."}`, fault.NotFound, "no such thing. (request r-1)", false},
		"wrong key":          {400, "", `{"__type":"UnrecognizedClientException","message":"bad token"}`, fault.Denied, "bad token", true},
		"unknown":            {400, "", `{"__type":"SomethingNew","message":"m"}`, fault.Invalid, "SomethingNew: m", false},
		"a proxy":            {502, "", `<html>canary</html>`, fault.Unavailable, "502", false},
		"forbidden":          {403, "", ``, fault.Denied, "403", false},
		"not JSON":           {200, "", `<html>canary</html>`, fault.Unavailable, "not the JSON", false},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked *http.Request
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				w.Header().Set("X-Amzn-RequestId", "r-1")
				w.Header().Set("X-Amzn-ErrorType", row.header)
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
			}))
			defer h.Close()
			cfg := sdk.Config{Region: "us-east-1", BaseEndpoint: &h.URL, HTTPClient: h.Client(), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "session")}
			err := NewJSONService(cfg, "ssm", "AmazonSSM").Call(t.Context(), "GetParameter", map[string]string{"a": "b"}, &struct{}{}, "read parameter")
			if err == nil || fault.KindOf(err) != row.kind || !strings.HasPrefix(err.Error(), "read parameter: ") || !strings.Contains(err.Error(), row.text) {
				t.Errorf("got %v of kind %v, want %q of kind %v", err, fault.KindOf(err), row.text, row.kind)
			}
			if strings.Contains(err.Error(), "canary") || BadCredentials(err) != row.credential {
				t.Errorf("got %v, bad credentials %v", err, BadCredentials(err))
			}
			auth := asked.Header.Get("Authorization")
			if asked.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" || !strings.Contains(auth, "/us-east-1/ssm/aws4_request") || asked.Header.Get("X-Amz-Security-Token") != "session" {
				t.Errorf("asked with %v", asked.Header)
			}
		})
	}
}
