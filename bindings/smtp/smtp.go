// Package smtp is the output binding that sends mails.
//
// Configure it as bindings.smtp with a host. The data of a request is the mail's
// body, as HTML; emailFrom, emailTo, emailCC, emailBCC, subject and priority in
// the request's metadata go before the options of those names. Several
// addresses are separated by semicolons.
//
// It promises that a call returns without an error only when the server has
// taken the mail for every recipient, and that nothing in subject or addresses
// makes another header. Each call has a connection of its own.
package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("smtp", component.About{
	Summary: "Sends mails through an SMTP server",
	Ack:     "A call is done when the server has taken the mail for all its recipients.",
	Order:   "None between calls; a pipeline with one lane sends one mail after the other.",
	Limits:  "A mail is held in memory. A call takes at most timeout.",
	Dapr: "A server's 4xx reply and a broken connection are tried again, a 5xx reply is not; a mail without a sender, " +
		"a recipient or a subject is refused as invalid; startTLS can insist on TLS; a password is sent without encryption only when startTLS is never; a call ends with its context.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: mail
spec:
  type: bindings.smtp
  version: v1
  metadata:
    - name: host
      value: mail.example.com
    - name: user
      value: orders
    - name: password
      secretKeyRef: {name: mail, key: password}
    - name: emailFrom
      value: orders@example.com
    - name: subject
      value: Your order
auth:
  secretStore: local
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	Host          string           `meta:"host,required" doc:"Name or address of the server." example:"mail.example.com"`
	Port          int              `meta:"port" doc:"Port of the server; on 465 the connection begins with TLS." default:"587"`
	User          string           `meta:"user" doc:"Whom to log in as; nobody when empty." example:"orders"`
	Password      component.Secret `meta:"password" doc:"Password of user."`
	SkipTLSVerify bool             `meta:"skipTLSVerify" doc:"Accepts any certificate of the server." default:"false"`
	StartTLS      string           `meta:"startTLS" doc:"Whether to encrypt: whenOffered by the server, always, or never. A password is not sent without encryption unless this is never." enum:"whenOffered|always|never" default:"whenOffered"`
	Timeout       time.Duration    `meta:"timeout" doc:"How long sending one mail may take." default:"30s"`
	EmailFrom     string           `meta:"emailFrom" doc:"Sender, unless the request names one." example:"orders@example.com"`
	EmailTo       string           `meta:"emailTo" doc:"Recipients, separated by semicolons, unless the request names some." example:"a@example.com;b@example.com"`
	EmailCC       string           `meta:"emailCC" doc:"Recipients of a copy."`
	EmailBCC      string           `meta:"emailBCC" doc:"Recipients of a copy whom the others do not see."`
	Subject       string           `meta:"subject" doc:"Subject, unless the request names one." example:"Your order"`
	Priority      int              `meta:"priority" doc:"The header X-Priority, from 1 (highest) to 5 (lowest)." default:"3"`
}

// Check refuses what no server can be reached with and addresses that are none.
func (o options) Check() error {
	var errs []error
	if o.Port < 1 || o.Port > 65535 {
		errs = append(errs, component.OptionErrorf("port", "%d is not a port", o.Port))
	}
	if o.Priority < 1 || o.Priority > 5 {
		errs = append(errs, component.OptionErrorf("priority", "must be between 1 and 5"))
	}
	if o.Timeout <= 0 {
		errs = append(errs, component.OptionErrorf("timeout", "%s is not a time to wait", o.Timeout))
	}
	if (o.User == "") != o.Password.IsZero() {
		errs = append(errs, component.OptionErrorf("user", "user and password go together"))
	}
	for name, value := range map[string]string{"emailFrom": o.EmailFrom, "emailTo": o.EmailTo, "emailCC": o.EmailCC, "emailBCC": o.EmailBCC} {
		if err := mail.NewMsg().To(addresses(value)...); err != nil && value != "" {
			errs = append(errs, component.OptionErrorf(name, "%w", err))
		}
	}
	return errors.Join(errs...)
}

type binding struct{ options options }

// open does not ask the server: a mail server that is away now may be back when
// the first mail is sent.
func open(_ context.Context, _ component.Env, o options) (bindings.Driver, error) {
	return &binding{options: o}, nil
}

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// Close has nothing to do.
func (b *binding) Close(context.Context) error { return nil }

// Invoke sends one mail.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "send mail: operation %q is not supported; use create", r.Operation)
	}
	msg, err := b.message(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	line := &line{}
	defer line.cut()
	defer context.AfterFunc(ctx, line.cut)()
	client, err := b.client(line)
	if err != nil {
		return nil, fault.New(fault.Invalid, "send mail: %w", err)
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return nil, explain(ctx, err)
	}
	return nil, nil
}

// line holds the connection of one call. The library leaves it open when a
// login fails, and does not hear of the end of a context while it sends.
type line struct {
	mu   sync.Mutex
	conn net.Conn
	over bool
}

// hold keeps the connection; it closes one that comes too late.
func (l *line) hold(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	if l.over {
		_ = conn.Close()
	}
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.conn != nil {
		_ = l.conn.Close() // the library has closed it already, when all went well
	}
}

func (b *binding) client(line *line) (*mail.Client, error) {
	o := b.options
	policies := map[string]mail.TLSPolicy{"whenOffered": mail.TLSOpportunistic, "always": mail.TLSMandatory, "never": mail.NoTLS}
	// skipTLSVerify is the user's own wish.
	conf := &tls.Config{ServerName: o.Host, InsecureSkipVerify: o.SkipTLSVerify, MinVersion: tls.VersionTLS12}
	opts := []mail.Option{
		mail.WithPort(o.Port), mail.WithTimeout(o.Timeout), mail.WithTLSPolicy(policies[o.StartTLS]), mail.WithoutNoop(),
		mail.WithTLSConfig(conf),
	}
	dial := (&net.Dialer{}).DialContext
	if o.Port == 465 {
		opts = append(opts, mail.WithSSL())
		dial = (&tls.Dialer{Config: conf}).DialContext
	}
	opts = append(opts, mail.WithDialContextFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			line.hold(conn)
		}
		return conn, err
	}))
	if o.User != "" {
		how := mail.SMTPAuthAutoDiscover // refuses to show a password on a line that is not encrypted
		if o.StartTLS == "never" {
			how = mail.SMTPAuthPlainNoEnc
		}
		opts = append(opts, mail.WithSMTPAuth(how), mail.WithUsername(o.User), mail.WithPassword(o.Password.Reveal()))
	}
	return mail.NewClient(o.Host, opts...)
}

// message makes the mail. The body is sent in base64, so that every byte and
// line arrives as it is.
func (b *binding) message(r *bindings.Request) (*mail.Msg, error) {
	value := func(name, option string) string {
		if v := r.Metadata[name]; v != "" {
			return v
		}
		return option
	}
	from, to := value("emailFrom", b.options.EmailFrom), addresses(value("emailTo", b.options.EmailTo))
	subject := value("subject", b.options.Subject)
	priority := value("priority", strconv.Itoa(b.options.Priority))
	if n, err := strconv.Atoi(priority); err != nil || n < 1 || n > 5 {
		return nil, fault.New(fault.Invalid, "make mail: priority %q is not a number from 1 to 5", priority)
	}
	switch {
	case from == "":
		return nil, fault.New(fault.Invalid, "make mail: no sender; set emailFrom")
	case len(to) == 0:
		return nil, fault.New(fault.Invalid, "make mail: no recipient; set emailTo")
	case subject == "":
		return nil, fault.New(fault.Invalid, "make mail: no subject; set subject")
	case strings.ContainsAny(subject, "\r\n"):
		return nil, fault.New(fault.Invalid, "make mail: the subject has a line break")
	}
	msg := mail.NewMsg(mail.WithEncoding(mail.EncodingB64), mail.WithNoDefaultUserAgent())
	err := errors.Join(msg.From(from), msg.To(to...))
	if cc := addresses(value("emailCC", b.options.EmailCC)); len(cc) > 0 {
		err = errors.Join(err, msg.Cc(cc...))
	}
	if bcc := addresses(value("emailBCC", b.options.EmailBCC)); len(bcc) > 0 {
		err = errors.Join(err, msg.Bcc(bcc...))
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "make mail: %w", err)
	}
	msg.Subject(subject)
	msg.SetGenHeader("X-Priority", priority)
	msg.SetMessageID()
	msg.SetDate()
	body := unquoted(r.Data)
	msg.SetBodyWriter(mail.TypeTextHTML, func(w io.Writer) (int64, error) {
		n, err := w.Write(body)
		return int64(n), err
	})
	return msg, nil
}

// unquoted takes the quotes off a body that is one JSON string: SDKs send text
// so, and Dapr takes them off too.
func unquoted(data []byte) []byte {
	if len(data) > 1 && data[0] == '"' {
		if s, err := strconv.Unquote(string(data)); err == nil {
			return []byte(s)
		}
	}
	return data
}

// addresses takes a list apart.
func addresses(list string) []string {
	var all []string
	for a := range strings.SplitSeq(list, ";") {
		if a = strings.TrimSpace(a); a != "" {
			all = append(all, a)
		}
	}
	return all
}

// explain gives the error of a mail that was not sent its kind.
func explain(ctx context.Context, err error) error {
	code := 0
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		code = reply.Code
	}
	if refused, ok := errors.AsType[*mail.SendError](err); ok && refused.ErrorCode() != 0 {
		code = refused.ErrorCode()
	}
	kind := fault.Unavailable
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Wrap(errors.Join(context.Canceled, err), "send mail")
	case errors.Is(err, mail.ErrNoSupportedAuthDiscovered), code == 530, code == 534, code == 535, code == 538:
		kind = fault.Denied
	case code >= 500:
		kind = fault.Invalid
	case code == 0 && (ctx.Err() != nil || isNet && timeout.Timeout()):
		kind = fault.Timeout
	}
	return fault.Wrap(fault.As(kind, err), "send mail")
}
