package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// The metadata that Invoke understands, beside header.<Name>.
const (
	metaID, metaType, metaSource, metaSubject, metaContentType = "id", "type", "source", "subject", "contentType"
	headerPrefix                                               = "header."
	maxHeaders                                                 = 64
)

// sender is the output binding.
type sender struct {
	name   string
	o      options
	now    func() time.Time
	scheme scheme
	client *http.Client
	host   string // what errors show of the address
}

func newSender(name string, o options) *sender {
	host := "the receiver"
	if u, err := url.Parse(o.URL.Reveal()); err == nil {
		host = u.Host
	}
	return &sender{
		name: name, o: o, now: time.Now, scheme: newScheme(o), host: host,
		client: &http.Client{
			Transport: client.NewTransport(client.Options{AllowLinkLocal: o.AllowLinkLocal, MaxConns: o.MaxConcurrency}),
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
	}
}

// Operations implements [bindings.Invoker].
func (s *sender) Operations() []string { return []string{"create", "post"} }

// Close implements [bindings.Driver].
func (s *sender) Close(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

// Invoke sends one request and returns once it is answered 2xx, with the
// status in metadata statusCode and the body in Data; a body that was cut off
// at maxResponseSize has metadata truncated. Metadata id is the delivery's id
// and the event's (random when empty: then a receiver cannot know a repetition
// by it); type, source, subject and contentType are the event's; header.<Name>
// adds a header.
//
// Kinds: Invalid for a request that cannot be sent and for a redirect, which is
// never followed; Exhausted for 429 and Unavailable for 503, with the pause of
// Retry-After; NotFound for 404 and 410, Denied for 401 and 403 and for an
// address that is refused; Timeout after timeout.
func (s *sender) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	req, err := s.request(ctx, r)
	if err != nil {
		return nil, fault.Wrap(err, "send to %s", s.host)
	}
	res, err := s.client.Do(req)
	if err != nil {
		// The text of a url.Error has the whole address, which may be secret.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		if k := fault.KindOf(err); k == fault.Internal {
			err = fault.As(fault.Unavailable, err)
		}
		return nil, fault.Wrap(err, "send to %s", s.host)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, fault.Wrap(s.refusal(res), "send to %s", s.host)
	}
	// The receiver has taken it: what is wrong with the answer's body is not
	// worth sending again for.
	metadata := map[string]string{"statusCode": strconv.Itoa(res.StatusCode)}
	data, err := client.ReadBody(res.Body, int64(s.o.MaxResponse))
	if err != nil {
		metadata["truncated"] = "true"
	}
	if ct := res.Header.Get("Content-Type"); ct != "" {
		metadata[metaContentType] = ct
	}
	return &bindings.Response{Data: data, Metadata: metadata}, nil
}

// refusal is the error of an answer that is not 2xx.
func (s *sender) refusal(res *http.Response) error {
	if res.StatusCode < 400 {
		return fault.New(fault.Invalid, "answered %d; redirects are not followed", res.StatusCode)
	}
	err := fault.New(fault.FromHTTPStatus(res.StatusCode), "answered %d", res.StatusCode)
	if after := client.RetryAfter(res.Header, s.now()); after > 0 {
		return fault.WithRetryAfter(err, after)
	}
	return err
}

// request builds and signs the request.
func (s *sender) request(ctx context.Context, r *bindings.Request) (*http.Request, error) {
	if r.Operation != "create" && r.Operation != "post" {
		return nil, fault.New(fault.Invalid, "operation %q is not one of create, post", r.Operation)
	}
	head := http.Header{}
	for _, line := range s.o.Headers {
		name, value, _ := strings.Cut(line, ":")
		head.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if err := addHeaders(head, r.Metadata); err != nil {
		return nil, err
	}
	body, id, err := s.body(head, r)
	if err != nil {
		return nil, err
	}
	if s.scheme != nil {
		s.scheme.sign(head, headerID(id), body, s.now())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.URL.Reveal(), bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the url is not valid") // the text of err has it
	}
	if head.Get("User-Agent") == "" {
		head.Set("User-Agent", "penstock")
	}
	req.Header = head
	return req, nil
}

// addHeaders takes the entries header.<Name> of the metadata.
func addHeaders(head http.Header, metadata map[string]string) error {
	n := 0
	for key, value := range metadata {
		name, ok := strings.CutPrefix(key, headerPrefix)
		switch {
		case !ok:
			continue
		case !isToken(name) || !isFieldValue(value):
			return fault.New(fault.Invalid, "metadata %q is not a header", key)
		case n == maxHeaders:
			return fault.New(fault.Invalid, "more than %d headers", maxHeaders)
		}
		head.Set(name, value)
		n++
	}
	return nil
}

// headerID makes an event's id fit for the header that is signed. A dot
// separates the parts of what is signed, so it becomes a dash.
func headerID(id string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '.' {
			return '-'
		}
		return r
	}, id[:min(len(id), maxText)])
}

// body returns what is sent and its id, and sets its headers.
func (s *sender) body(head http.Header, r *bindings.Request) ([]byte, string, error) {
	contentType := orElse(r.Metadata[metaContentType], s.o.ContentType)
	if !isFieldValue(contentType) {
		return nil, "", fault.New(fault.Invalid, "metadata %q is not a content type", metaContentType)
	}
	id := orElse(r.Metadata[metaID], rand.Text())
	if s.o.Format == raw {
		head.Set("Content-Type", contentType)
		return r.Data, id, nil
	}
	event, err := s.event(id, contentType, r)
	switch {
	case err != nil:
		return nil, "", err
	case s.o.Format == structured:
		return event.HTTPStructured(head), event.ID(), nil
	}
	return event.HTTPBinary(head), event.ID(), nil
}

// event is the CloudEvent to send: the data itself when it is one, else one
// made around it.
func (s *sender) event(id, contentType string, r *bindings.Request) (*cloudevents.Event, error) {
	if mediaType(contentType) == "application/cloudevents+json" {
		return cloudevents.Scan(r.Data)
	}
	if isJSON(contentType) && !(utf8.Valid(r.Data) && json.Valid(r.Data)) {
		return nil, fault.New(fault.Invalid, "the data is not valid JSON; set contentType to what it is")
	}
	attrs := []cloudevents.Attr{
		{Name: "id", Value: id},
		{Name: "source", Value: orElse(r.Metadata[metaSource], orElse(s.o.Source, "/webhooks/"+s.name))},
		{Name: "type", Value: orElse(r.Metadata[metaType], orElse(s.o.EventType, "webhook.sent"))},
		{Name: "time", Value: s.now().UTC().Format(time.RFC3339Nano)},
	}
	if subject := r.Metadata[metaSubject]; subject != "" {
		attrs = append(attrs, cloudevents.Attr{Name: "subject", Value: subject})
	}
	return cloudevents.New(contentType, r.Data, attrs...)
}
