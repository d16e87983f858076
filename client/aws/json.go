package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/penstock-io/penstock/fault"
)

// JSONService is a service that speaks AWS's JSON protocol, for components that
// need three of its hundred operations: the SDK's own package for it would make
// the binary larger by all of them. Make one with [NewJSONService]; it may be
// used by many goroutines.
type JSONService struct {
	cfg      sdk.Config
	name     string
	target   string
	endpoint string
	signer   *v4.Signer
}

// answerBytes bounds an answer.
const answerBytes = 16 << 20

// NewJSONService makes a service of its name, which stands in host names and in
// signatures, and of the word before each operation: "ssm" and "AmazonSSM".
func NewJSONService(cfg sdk.Config, name, target string) *JSONService {
	s := &JSONService{cfg: cfg, name: name, target: target, signer: v4.NewSigner(), endpoint: sdk.ToString(cfg.BaseEndpoint)}
	if s.endpoint == "" {
		s.endpoint = "https://" + name + "." + cfg.Region + "." + domain(cfg.Region)
	}
	s.endpoint = strings.TrimRight(s.endpoint, "/") + "/"
	return s
}

// domain is what host names of a region end with.
func domain(region string) string {
	switch Partition(region) {
	case "aws-cn":
		return "amazonaws.com.cn"
	case "aws-iso":
		return "c2s.ic.gov"
	case "aws-iso-b":
		return "sc2s.sgov.gov"
	case "aws-eusc":
		return "amazonaws.eu"
	}
	return "amazonaws.com"
}

// Call asks for an operation: in and out are JSON. It is sent once. Errors are
// those of [Wrap], with the words "verb object".
func (s *JSONService) Call(ctx context.Context, operation string, in, out any, words string) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.New(fault.Internal, "%s: %w", words, err)
	}
	data, err := s.send(ctx, operation, body)
	if err != nil {
		return Wrap(err, "%s", words)
	}
	if err := json.Unmarshal(data, out); err != nil { // whose text may have a part of the answer
		return fault.New(fault.Unavailable, "%s: the answer is not the JSON of %s", words, s.name)
	}
	return nil
}

func (s *JSONService) send(ctx context.Context, operation string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", s.target+"."+operation)
	if s.cfg.Credentials == nil {
		return nil, fault.New(fault.Denied, "there are no credentials")
	}
	creds, err := s.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	if err := s.signer.SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), s.name, s.cfg.Region, time.Now()); err != nil {
		return nil, err
	}
	resp, err := s.cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > answerBytes:
		return nil, fault.New(fault.Invalid, "the answer has more than %d bytes", answerBytes)
	case resp.StatusCode/100 != 2:
		return nil, failure(resp, data)
	}
	return data, nil
}

// failure is the error of an answer, as the SDK would make it.
func failure(resp *http.Response, body []byte) error {
	var said struct {
		Type    string `json:"__type"`
		Code    string `json:"code"`
		Message string `json:"message"`
		Capital string `json:"Message"`
	}
	_ = json.Unmarshal(body, &said) // what is no JSON has its status only
	code, _, _ := strings.Cut(resp.Header.Get("X-Amzn-Errortype"), ":")
	for _, c := range []string{said.Type, said.Code} {
		if code == "" {
			code = c
		}
	}
	if i := strings.LastIndexByte(code, '#'); i >= 0 {
		code = code[i+1:]
	}
	if said.Message == "" {
		said.Message = said.Capital
	}
	var err error = &smithy.GenericAPIError{Code: code, Message: said.Message}
	if code == "" {
		err = fault.New(fault.FromHTTPStatus(resp.StatusCode), "answer %s", resp.Status)
	}
	return &awshttp.ResponseError{
		RequestID:     resp.Header.Get("X-Amzn-Requestid"),
		ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: err},
	}
}
