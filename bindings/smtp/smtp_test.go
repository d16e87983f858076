package smtp

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// server takes mails as the one of package services does: busy@ is answered
// 451, gone@ 550, another login than penstock and secret 535.
type server struct {
	mu    sync.Mutex
	mails []string
}

func serve(t *testing.T) (addr string, s *server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.talk(c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String(), s
}

func (s *server) talk(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	say := func(text string) { fmt.Fprintf(c, "%s\r\n", text) }
	say("220 fake")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-fake\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN")
		case "AUTH":
			login, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			say(map[bool]string{true: "235 ok", false: "535 no"}[string(login) == "\x00penstock\x00secret"])
		case "RCPT":
			say(map[bool]string{true: "451 busy", false: map[bool]string{true: "550 gone", false: "250 ok"}[strings.Contains(rest, "gone@")]}[strings.Contains(rest, "busy@")])
		case "DATA":
			say("354 go on")
			s.take(in)
			say("250 ok")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *server) take(in *bufio.Reader) {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == ".\r\n" {
			break
		}
		b.WriteString(line)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, b.String())
}

// find returns the mail that has a word in it.
func (s *server) find(word string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mails {
		if strings.Contains(m, word) {
			return m
		}
	}
	return ""
}

// suite runs the conformance suite; find looks for the mail with a word in it.
func suite(t *testing.T, options map[string]string, find func(word string) string) {
	t.Helper()
	to := func(who string) map[string]string { return map[string]string{"emailTo": who} }
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(*testing.T) map[string]string { return options },
		Wrong: map[string]map[string]string{
			"port": {"port": "70000"}, "priority": {"priority": "6"}, "timeout": {"timeout": "0s"}, "user": {"user": "x", "password": ""},
			"emailTo": {"emailTo": "nobody"}, "startTLS": {"startTLS": "perhaps"}, "skipTLSVerify": {"skipTLSVerify": "perhaps"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("<p>x"), Metadata: map[string]string{
				"emailFrom": "a@example.com", "emailTo": "b@example.com; c@example.com", "emailCC": "d@example.com", "emailBCC": "e@example.com", "subject": "ä", "priority": "1",
			}}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			subject := conform.Unique(t)
			if strings.HasPrefix(string(data), `"`) { // one pair of quotes is taken off, as Dapr does
				data = []byte(strconv.Quote(string(data)))
			}
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"subject": subject}})
			if err != nil {
				return nil, err
			}
			return body(t, find(subject)), nil
		},
		Fails: []conform.BindingFailure{
			{Name: "busy", Request: bindings.Request{Operation: "create", Metadata: to("busy@example.com")}, Kind: fault.Unavailable},
			{Name: "gone", Request: bindings.Request{Operation: "create", Metadata: to("b@example.com;gone@example.com")}, Kind: fault.Invalid},
			{Name: "address", Request: bindings.Request{Operation: "create", Metadata: to("nobody")}, Kind: fault.Invalid},
			{Name: "header", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"subject": "a\r\nBcc: x@example.com"}}, Kind: fault.Invalid},
			{Name: "priority", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"priority": "high"}}, Kind: fault.Invalid},
		},
	})
}

func body(t *testing.T, text string) []byte {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("read mail %q: %v", text, err)
	}
	data, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func settings(addr string) map[string]string {
	host, port, _ := net.SplitHostPort(addr)
	return map[string]string{
		"host": host, "port": port, "user": "penstock", "password": "secret", "skipTLSVerify": "true",
		"emailFrom": "from@example.com", "emailTo": "to@example.com", "subject": "s",
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr, s := serve(t)
	o := settings(addr)
	o["startTLS"] = "never"
	suite(t, o, s.find)
}

func TestMailHasWhatTheRequestSays(t *testing.T) {
	t.Parallel()
	b := &binding{options{EmailFrom: "o@example.com", Subject: "option", Priority: 3}}
	msg, err := b.message(&bindings.Request{Data: []byte(`"a\nb"`), Metadata: map[string]string{"emailTo": "x@example.com;y@example.com", "emailBCC": "z@example.com", "priority": "5"}})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if _, err := msg.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"From: <o@example.com>", "To: <x@example.com>, <y@example.com>", "Subject: option", "X-Priority: 5", "text/html"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "z@example.com") {
		t.Error("the hidden recipient is shown")
	}
	if got := body(t, text.String()); string(got) != "a\nb" {
		t.Errorf("body is %q", got)
	}
}

// TestKindsOfServers tells a wrong password and a server that is away apart.
func TestKindsOfServers(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	for name, c := range map[string]struct {
		change map[string]string
		kind   fault.Kind
	}{
		"password": {map[string]string{"password": "wrong", "startTLS": "never"}, fault.Denied},
		"plain":    {nil, fault.Denied},
		"tls":      {map[string]string{"startTLS": "always"}, fault.Unavailable},
		"away":     {map[string]string{"port": "1"}, fault.Unavailable},
	} {
		o := options{Host: "127.0.0.1", StartTLS: "whenOffered", Priority: 3, Timeout: 1e10, User: "penstock", EmailFrom: "a@example.com", EmailTo: "b@example.com", Subject: "s"}
		s := settings(addr)
		maps.Copy(s, c.change)
		fmt.Sscan(s["port"], &o.Port)
		o.Password = component.NewSecret(s["password"])
		if s["startTLS"] != "" {
			o.StartTLS = s["startTLS"]
		}
		_, err := (&binding{o}).Invoke(t.Context(), &bindings.Request{Operation: "create"})
		if fault.KindOf(err) != c.kind || strings.Contains(fmt.Sprint(err), "wrong") {
			t.Errorf("%s: %v is %v, not %v", name, err, fault.KindOf(err), c.kind)
		}
	}
}

// maildir looks through the mails that a server keeps as files.
func maildir(folder string) func(word string) string {
	return func(word string) string {
		files, _ := filepath.Glob(filepath.Join(folder, "new", "*"))
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err == nil && strings.Contains(string(text), word) {
				return string(text)
			}
		}
		return ""
	}
}
