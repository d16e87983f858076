package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/penstock-io/penstock/fault"
)

type publishCommand struct {
	PubSub      string            `name:"pubsub" short:"p" default:"pubsub" help:"Pub/sub component."`
	Topic       string            `name:"topic" short:"t" required:"" help:"Topic to publish to."`
	Data        string            `name:"data" short:"d" help:"The payload; standard input when neither --data nor --data-file is given."`
	DataFile    string            `name:"data-file" short:"f" help:"File with the payload."`
	ContentType string            `name:"content-type" default:"application/json" help:"Media type of the payload."`
	Metadata    map[string]string `name:"metadata" short:"m" help:"Request metadata, key=value; may be repeated."`
	apiFlags    `embed:""`
}

// Run publishes one event and returns when the broker has it.
func (c *publishCommand) Run(ctx context.Context, std *stdio) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(c.path()), bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Invalid, "publish: %w", err)
	}
	req.Header.Set("Content-Type", c.ContentType)
	if _, err := c.do(req); err != nil {
		return fault.Wrap(err, "publish to %s/%s", c.PubSub, c.Topic)
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

func (c *publishCommand) path() string {
	q := url.Values{}
	for k, v := range c.Metadata {
		q.Set("metadata."+k, v)
	}
	p := "/v1.0/publish/" + url.PathEscape(c.PubSub) + "/" + c.Topic
	if len(q) > 0 {
		p += "?" + q.Encode()
	}
	return p
}
