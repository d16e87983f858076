package http

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

const subscribePath = "/dapr/subscribe"

// Subscriptions asks the app with GET /dapr/subscribe which topics it wants. A
// 404 or an empty answer means none. Anything else but an answer is tried again
// three times, after 500 ms and then longer; an answer that cannot be read is an
// error of kind invalid at once. Entries that can never deliver anything, with
// no topic or no route, are left out and logged.
func (c *Channel) Subscriptions(ctx context.Context) ([]config.Subscription, error) {
	if slices.Contains(c.o.Disable, "subscribe") {
		return nil, nil
	}
	body, err := app.Ask(ctx, c.o.DiscoveryTimeout, c.askSubscriptions)
	if err != nil {
		return nil, fault.Wrap(err, "ask app for subscriptions")
	}
	return c.parseSubscriptions(body)
}

func (c *Channel) askSubscriptions(ctx context.Context) ([]byte, error) {
	answer, err := c.Call(ctx, &Request{Method: http.MethodGet, Path: subscribePath})
	switch {
	case err != nil:
		return nil, err
	case answer.Status == http.StatusNotFound:
		return nil, nil
	case answer.Status/100 != 2:
		return nil, badStatus(subscribePath, answer.Status)
	}
	return answer.Body, nil
}

func badStatus(path string, status int) error {
	return fault.As(fault.FromHTTPStatus(status), &StatusError{Path: path, Status: status})
}

// subscription is one entry of the answer.
type subscription struct {
	PubSub     string   `json:"pubsubname"`
	Topic      string   `json:"topic"`
	Route      string   `json:"route"`
	Routes     routes   `json:"routes"`
	DeadLetter string   `json:"deadLetterTopic"`
	Metadata   metadata `json:"metadata"`
	Bulk       struct {
		Enabled bool `json:"enabled"`
		Max     int  `json:"maxMessagesCount"`
		AwaitMs int  `json:"maxAwaitDurationMs"`
	} `json:"bulkSubscribe"`
}

type routes struct {
	Rules []struct {
		Match string `json:"match"`
		Path  string `json:"path"`
	} `json:"rules"`
	Default string `json:"default"`
}

// metadata takes numbers and booleans for their text; null is nothing.
type metadata map[string]string

// UnmarshalJSON reads an object of scalars.
func (m *metadata) UnmarshalJSON(raw []byte) error {
	if string(raw) == `""` { // what some SDKs send for nothing
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return fmt.Errorf("metadata: want an object: %w", err)
	}
	*m = make(metadata, len(fields))
	for name, value := range fields {
		var text string
		switch {
		case json.Unmarshal(value, &text) == nil:
		case value[0] == '{' || value[0] == '[':
			return fmt.Errorf("metadata %q: want a string, number or boolean", name)
		default:
			text = string(value)
		}
		(*m)[name] = text
	}
	return nil
}

func (c *Channel) parseSubscriptions(body []byte) ([]config.Subscription, error) {
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return nil, nil
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fault.New(fault.Invalid, "read subscriptions: want a JSON array as the answer to GET %s, got %.60q: %w", subscribePath, body, err)
	}
	if len(entries) > app.MaxSubscriptions {
		return nil, fault.New(fault.Invalid, "read subscriptions: %d of them, the limit is %d", len(entries), app.MaxSubscriptions)
	}
	subs := make([]config.Subscription, 0, len(entries))
	rules := 0
	for i, raw := range entries {
		var s subscription
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fault.New(fault.Invalid, "read subscriptions: entry %d of GET %s: %w", i+1, subscribePath, err)
		}
		if rules += len(s.Routes.Rules); rules > app.MaxRules {
			return nil, fault.New(fault.Invalid, "read subscriptions: more than %d rules up to entry %d of GET %s", app.MaxRules, i+1, subscribePath)
		}
		if why := s.useless(); why != "" {
			c.log.Warn("Subscription of the app is left out: "+why, "entry", i+1, "pubsub", s.PubSub, "topic", s.Topic)
			continue
		}
		subs = append(subs, s.config(i+1))
	}
	return subs, nil
}

func (s *subscription) useless() string {
	switch {
	case s.PubSub == "":
		return "it has no pubsubname"
	case s.Topic == "":
		return "it has no topic"
	case len(s.rules(config.Place{})) == 0:
		return "it has no route"
	}
	return ""
}

func (s *subscription) config(entry int) config.Subscription {
	place := config.Place{File: fmt.Sprintf("GET %s, entry %d", subscribePath, entry)}
	out := config.Subscription{
		PubSub: s.PubSub, Topic: s.Topic, Rules: s.rules(place),
		DeadLetterTopic: s.DeadLetter, Metadata: s.Metadata, Place: place,
	}
	if s.Bulk.Enabled {
		out.Bulk = config.Bulk{Enabled: true, MaxMessages: app.DefaultBulkMessages, MaxAwait: app.DefaultBulkWait}
		if s.Bulk.Max > 0 {
			out.Bulk.MaxMessages = s.Bulk.Max
		}
		if s.Bulk.AwaitMs > 0 {
			out.Bulk.MaxAwait = time.Duration(min(s.Bulk.AwaitMs, math.MaxInt32)) * time.Millisecond
		}
	}
	return out
}

// rules are the routes in order; those of "routes" win over "route".
func (s *subscription) rules(place config.Place) []config.Rule {
	var rules []config.Rule
	add := func(match, path string) {
		if path != "" {
			rules = append(rules, config.Rule{Match: match, Path: rooted(path), Place: place})
		}
	}
	for _, r := range s.Routes.Rules {
		add(r.Match, r.Path)
	}
	add("", s.Routes.Default)
	if len(rules) == 0 {
		add("", s.Route)
	}
	return rules
}

// WantsBinding asks the app with OPTIONS whether it takes a binding's events at
// its path: a success or 405 means yes, any other refusal no. No answer, or a
// server error other than 501, is an error.
func (c *Channel) WantsBinding(ctx context.Context, to *app.Address) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.ProbeTimeout)
	defer cancel()
	answer, err := c.Call(ctx, &Request{Method: http.MethodOptions, Path: to.Path})
	switch {
	case err != nil:
		return false, fault.Wrap(err, "ask app for OPTIONS %s", to.Path)
	case answer.Status/100 == 2, answer.Status == http.StatusMethodNotAllowed:
		return true, nil
	case answer.Status >= 500 && answer.Status != http.StatusNotImplemented:
		return false, fault.Wrap(badStatus(to.Path, answer.Status), "ask app for OPTIONS %s", to.Path)
	}
	return false, nil
}

// Health asks the app for its health; any success means that it is well.
func (c *Channel) Health(ctx context.Context) error {
	began := time.Now()
	answer, err := c.ask(ctx, &Request{Method: http.MethodGet, Path: c.o.HealthPath})
	if err == nil {
		c.o.Metrics.Probed(answer.Status, time.Since(began))
	}
	if err == nil && answer.Status/100 != 2 {
		err = badStatus(c.o.HealthPath, answer.Status)
	}
	return err
}

// Reach returns nil when something listens at the app's port.
func (c *Channel) Reach(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return app.Unreachable(err)
	}
	return conn.Close()
}
