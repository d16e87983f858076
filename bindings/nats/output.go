package nats

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/client/batch"
	client "github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/fault"
)

// Headers by which services of NATS answer with an error.
const (
	errorHeader = "Nats-Service-Error"
	codeHeader  = "Nats-Service-Error-Code"
)

// Metadata of requests that is not a header of the message.
const (
	subjectName = "subject"
	idName      = "messageId"
	keyName     = "partitionKey"
)

// Operations implements bindings.Invoker.
func (b *output) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *output) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	m := client.Message{Data: r.Data, Key: r.Metadata[keyName], ID: r.Metadata[idName]}
	subject := r.Metadata[subjectName]
	if subject == "" {
		subject = b.o.PublishSubject
	}
	if subject == "" {
		return nil, fault.New(fault.Invalid, "%.40s: publishSubject is not set and the request has no metadata subject", r.Operation)
	}
	if err := client.ValidSubject(subject); err != nil {
		return nil, err
	}
	m.Metadata = maps.Clone(r.Metadata)
	for _, name := range []string{subjectName, idName, keyName} {
		delete(m.Metadata, name)
	}
	switch {
	case r.Operation == "request":
		return b.request(ctx, subject, m)
	case r.Operation != "create":
		return nil, fault.New(fault.Invalid, "operation %.40q is not supported; use create or request", r.Operation)
	case b.writer != nil:
		for _, err := range b.writer.Publish(ctx, subject, []client.Message{m}) {
			return nil, fault.Wrap(err, "publish to %s", subject)
		}
		return nil, nil
	}
	for _, err := range b.sender.writer.Do(ctx, message(subject, m)) {
		return nil, fault.Wrap(err, "publish to %s", subject)
	}
	return nil, nil
}

func message(subject string, m client.Message) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: client.Headers(m.Metadata, m.Key, m.ID), Data: m.Data}
}

// request asks and waits for one reply.
func (b *output) request(ctx context.Context, subject string, m client.Message) (*bindings.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.RequestTimeout)
	defer cancel()
	nc := b.conn.Raw()
	before := nc.LastError()
	reply, err := nc.RequestMsgWithContext(ctx, message(subject, m))
	if err != nil {
		if refused := client.Refused(nc, before, subject); refused != nil {
			err = refused
		}
		return nil, fault.Wrap(client.Classify(err), "request to %s", subject)
	}
	if text := reply.Header.Get(errorHeader); text != "" {
		code := reply.Header.Get(codeHeader)
		kind := fault.Internal
		if status, err := strconv.Atoi(code); err == nil && status >= 400 && status < 600 {
			kind = fault.FromHTTPStatus(status)
		}
		return nil, fault.New(kind, "request to %s: the service answers %s %s", subject, short(code), short(text))
	}
	answer := &bindings.Response{Data: reply.Data, Metadata: make(map[string]string, len(reply.Header))}
	client.Metadata(reply.Header, answer.Metadata)
	return answer, nil
}

// short is other people's text, fit for an error.
func short(text string) string {
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
}

// sender publishes to core NATS: many messages, then one question whether the
// server has them.
type sender struct {
	conn   *client.Conn
	writer *batch.Writer[*nats.Msg]
}

func newSender(ctx context.Context, conn *client.Conn) *sender {
	s := &sender{conn: conn}
	s.writer = batch.NewWriter(ctx, batch.Options[*nats.Msg]{
		Write: s.write, Most: 1024, Bytes: 8 << 20, Size: func(m *nats.Msg) int { return len(m.Data) },
	})
	return s
}

const flushTimeout = 10 * time.Second

func (s *sender) write(ctx context.Context, list []*nats.Msg) []error {
	nc := s.conn.Raw()
	before := nc.LastError()
	errs := make([]error, len(list))
	sent := false
	for i, m := range list {
		errs[i] = client.Classify(nc.PublishMsg(m))
		sent = sent || errs[i] == nil
	}
	if !sent {
		return errs
	}
	ferr := flush(ctx, nc)
	for i, m := range list {
		switch {
		case errs[i] != nil:
		case ferr != nil:
			errs[i] = ferr
		default:
			errs[i] = client.Classify(client.Refused(nc, before, m.Subject))
		}
	}
	return errs
}

// flush waits until the server has what was written.
func flush(ctx context.Context, nc *nats.Conn) error {
	if !nc.IsConnected() { // the library would wait for the next connection
		return fault.New(fault.Unavailable, "no connection to NATS")
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return client.Classify(nc.FlushWithContext(ctx))
}

// close waits for what is under way.
func (s *sender) close(ctx context.Context) error { return s.writer.Close(ctx) }
