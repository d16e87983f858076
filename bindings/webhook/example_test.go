package webhook_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/bindings/webhook"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// A webhook of GitHub becomes an event.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var log bytes.Buffer
	env := component.Env{Name: "github", Shared: &component.Shared{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	driver, err := webhook.Component.Open(ctx, env, []config.Item{
		{Name: "listen", Value: "127.0.0.1:0"},
		{Name: "signature", Value: "github"},
		{Name: "secret", Value: "It's a Secret to Everybody", Secret: true},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer driver.Close(ctx)

	taken := make(chan struct{})
	go func() {
		defer close(taken)
		_ = driver.(bindings.Reader).Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
			fmt.Println(d.Event.Type(), d.Event.ID(), string(d.Event.Data()))
			d.Settle(cloudevents.Acked())
			return nil
		})
	}()

	_, address, _ := strings.Cut(log.String(), "url=")
	address, _, _ = strings.Cut(address, " ")
	for status := http.StatusServiceUnavailable; status == http.StatusServiceUnavailable; {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("Hello, World!"))
		req.Header.Set("Content-Type", "text/plain")
		req.Header.Set("X-GitHub-Event", "ping")
		req.Header.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
		req.Header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
		status = res.StatusCode
	}
	cancel()
	<-taken
	// Output: com.github.ping 72d3162e-cc78-11e3-81ab-4c9367dc0958 Hello, World!
}
