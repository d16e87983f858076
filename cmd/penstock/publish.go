package main

import (
	"bytes"
	"context"
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

type publishCommand struct {
	PubSub      string            `name:"pubsub" short:"p" default:"pubsub" help:"Pub/sub component."`
	Topic       string            `name:"topic" short:"t" required:"" help:"Topic to publish to."`
	Data        string            `name:"data" short:"d" help:"The payload; standard input when neither --data nor --data-file is given."`
	DataFile    string            `name:"data-file" short:"f" help:"File with the payload."`
	ContentType string            `name:"content-type" default:"application/json" help:"Media type of the payload."`
	Metadata    map[string]string `name:"metadata" short:"m" help:"Request metadata, key=value; may be repeated."`
	Address     string            `name:"address" env:"DAPR_HTTP_ENDPOINT" help:"URL of the HTTP API; default: the HTTP port on loopback."`
	Port        int               `name:"dapr-http-port" env:"DAPR_HTTP_PORT" default:"3500" help:"Port of the HTTP API."`
	Timeout     time.Duration     `name:"timeout" default:"10s" help:"How long the publish may take."`
}

// Run publishes one event and returns when the broker has it.
func (c *publishCommand) Run(ctx context.Context, std *stdio) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(), bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Invalid, "publish: %w", err)
	}
	req.Header.Set("Content-Type", c.ContentType)
	if token := os.Getenv("DAPR_API_TOKEN"); token != "" {
		req.Header.Set("dapr-api-token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the address is in it
		}
		return fault.New(fault.Unavailable, "publish to %s: %w; is penstock running there?", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return fault.New(fault.FromHTTPStatus(resp.StatusCode), "publish to %s/%s: %s: %s", c.PubSub, c.Topic, resp.Status, strings.TrimSpace(string(text)))
	}
	_, err = fmt.Fprintf(std.out, "published %d bytes to %s/%s\n", len(body), c.PubSub, c.Topic)
	return err
}

func (c *publishCommand) body() ([]byte, error) {
	switch {
	case c.DataFile != "":
		b, err := os.ReadFile(c.DataFile)
		return b, fault.Wrap(err, "read payload")
	case c.Data != "":
		return []byte(c.Data), nil
	default:
		b, err := io.ReadAll(os.Stdin)
		return b, fault.Wrap(err, "read payload")
	}
}

func (c *publishCommand) url() string {
	base := c.Address
	if base == "" {
		base = fmt.Sprintf("http://127.0.0.1:%d", c.Port)
	}
	q := url.Values{}
	for k, v := range c.Metadata {
		q.Set("metadata."+k, v)
	}
	u := strings.TrimSuffix(base, "/") + "/v1.0/publish/" + url.PathEscape(c.PubSub) + "/" + c.Topic
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}
