package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// apiAddress says which running instance a command talks to.
type apiAddress struct {
	Address string `name:"address" env:"DAPR_HTTP_ENDPOINT" help:"URL of the HTTP API; default: the HTTP port on loopback."`
	Port    int    `name:"dapr-http-port" env:"DAPR_HTTP_PORT" default:"3500" help:"Port of the HTTP API."`
}

// apiFlags are those of a command that makes calls which end soon.
type apiFlags struct {
	apiAddress `embed:""`
	Timeout    time.Duration `name:"timeout" default:"10s" help:"How long the call may take."`
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// call sends one request with a JSON body, none when body is nil, and reads the
// JSON answer into out, unless that is nil. An answer that is not a success is
// an error with what the API said.
func (f *apiFlags) call(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fault.Wrap(err, "write request")
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.url(path), in)
	if err != nil {
		return fault.New(fault.Invalid, "make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := f.do(req)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fault.New(fault.Internal, "read the answer of %s: %w", path, err)
	}
	return nil
}

// do sends a request and returns the body of a success.
func (a *apiAddress) do(req *http.Request) ([]byte, error) {
	resp, err := a.open(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answerOf(resp)
}

func answerOf(resp *http.Response) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read the answer of %s: %w", resp.Request.URL.Host, err)
	}
	return answer, nil
}

// open sends a request with the token. The caller closes the body of a success.
func (a *apiAddress) open(req *http.Request) (*http.Response, error) {
	if token := os.Getenv("DAPR_API_TOKEN"); token != "" {
		req.Header.Set("dapr-api-token", token)
	}
	if req.URL.Host == "" {
		return nil, fault.New(fault.Invalid, "read --address %q: want a URL such as http://127.0.0.1:3500", a.Address)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the address is in it
		}
		return nil, fault.New(fault.Unavailable, "call %s: %w; is penstock running there?", req.URL.Host, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer, err := answerOf(resp)
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.FromHTTPStatus(resp.StatusCode), "%s", said(resp.Status, answer))
}

// said is what the API says of a failure.
func said(status string, answer []byte) string {
	var problem struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &problem) == nil && problem.Message != "" {
		return problem.Message
	}
	return strings.TrimSpace(status + " " + string(answer[:min(len(answer), 1<<10)]))
}

func (a *apiAddress) url(path string) string {
	base := a.Address
	if base == "" {
		base = fmt.Sprintf("http://127.0.0.1:%d", a.Port)
	}
	return strings.TrimSuffix(base, "/") + path
}
