package canary

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
)

// page is a browser that has signed in to the console.
type page struct {
	in     *instance
	client http.Client
	key    string
}

// onConsole signs in and looks through all that the console tells.
func (in *instance) onConsole(t *testing.T) {
	t.Helper()
	p := &page{in: in, client: http.Client{Timeout: patience}}
	wrong := in.c.plant("a wrong token of the console")
	in.c.search(t, "the console's answer to a wrong token", p.ask(t, http.MethodPost, "/session", `{"token":"`+wrong+`"}`))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.client.Jar = jar
	session := p.ask(t, http.MethodPost, "/session", `{"token":"`+in.pass+`"}`)
	var about struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(session[strings.IndexByte(session, '{'):]), &about); err != nil || about.Key == "" {
		t.Fatalf("%v in %s", err, session)
	}
	in.c.search(t, "the session of the console", session)
	p.key = about.Key
	p.read(t)
	p.letters(t)
	p.drafts(t)
	p.follow(t)
}

// ask makes a request as the page does and returns status, headers and body.
func (p *page) ask(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.in.console+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Penstock-Console", p.key)
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	fmt.Fprintln(&out, resp.Status)
	if path != "/session" { // whose cookie is the session
		resp.Header.Write(&out)
	}
	io.Copy(&out, resp.Body)
	return out.String()
}

// read asks for what the views show; nobody is told payloads there.
func (p *page) read(t *testing.T) {
	t.Helper()
	const own = "/v1.0-penstock"
	paths := []string{
		"/", "/session", "/none", "/v1.0/metadata", own + "/routes?window=10s", own + "/events", own + "/events?limit=500", own + "/deadletters", own + "/triggers",
		own + "/webhooks", own + "/deadletters/none", "/v1.0/state/none/k",
	}
	for _, c := range p.in.planted {
		switch kind, _, _ := strings.Cut(c.def.Type, "."); {
		case kind == "state" && !works(c):
			paths = append(paths, own+"/state/"+c.name, "/v1.0/state/"+c.name+"/k")
		case kind == "pubsub":
			p.look(t, http.MethodPost, "/v1.0/publish/"+c.name+"/t", `{"order":"`+p.in.payload()+`"}`)
		}
	}
	for _, path := range paths {
		p.look(t, http.MethodGet, path, "")
	}
}

func (p *page) look(t *testing.T, method, path, body string, but ...string) {
	t.Helper()
	p.in.c.search(t, "the console's answer to "+method+" "+path, p.ask(t, method, path, body), but...)
}

// letters looks at dead letters, which show payloads and nothing else, and replays
// them in vain.
func (p *page) letters(t *testing.T) {
	t.Helper()
	const path = "/v1.0-penstock/deadletters"
	text := p.ask(t, http.MethodGet, path, "")
	var list struct {
		DeadLetters []struct{ ID string } `json:"deadLetters"`
	}
	if err := json.Unmarshal([]byte(text[strings.IndexByte(text, '{'):]), &list); err != nil || len(list.DeadLetters) == 0 {
		t.Fatalf("dead letters: %v in %s", err, text)
	}
	for _, l := range list.DeadLetters {
		p.look(t, http.MethodGet, path+"/"+l.ID, "", "a payload", "a request's payload")
	}
	p.look(t, http.MethodPost, path+"/replay", `{"ids":["`+list.DeadLetters[0].ID+`"]}`)
}

// drafts has the mistakes checked, which may be written into the page with secrets.
func (p *page) drafts(t *testing.T) {
	t.Helper()
	for name, text := range mistakes() {
		if strings.Contains(text, "CANARY_ENV") {
			continue // it is the environment of another process
		}
		for strings.Contains(text, "CANARY") {
			text = strings.Replace(text, "CANARY", p.in.c.plant("a draft: %s", name), 1)
		}
		got := p.ask(t, http.MethodPost, "/check", text)
		// What only an opened name resolution refuses is not seen in a draft.
		if !strings.Contains(got, `"problems":[{`) && !strings.Contains(text, "nameResolution") {
			t.Errorf("the console finds nothing wrong with %s: this case shows nothing\n%s", name, got)
		}
		p.in.c.search(t, "the console's check of "+name, got)
	}
}

// follow watches events while one fails: with payloads for who asks for them, and
// without for who does not.
func (p *page) follow(t *testing.T) {
	t.Helper()
	for _, query := range []string{"", "payload=true"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.in.console+"/v1.0-penstock/events/watch?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Penstock-Console", p.key)
		client := http.Client{Jar: p.client.Jar}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		p.look(t, http.MethodPost, "/v1.0/publish/mem/orders", `{"order":"`+p.in.payload()+`"}`)
		var got []byte
		for piece := make([]byte, 4096); !bytes.Contains(got, []byte(`"deadletter"`)); {
			n, err := resp.Body.Read(piece)
			got = append(got, piece[:n]...)
			if err != nil {
				t.Fatalf("watch %s: %v after %s", query, err, got)
			}
		}
		but := []string{"a payload"}
		if query == "" {
			but = nil
		} else if !bytes.Contains(got, []byte(`"payload"`)) {
			t.Errorf("watch %s shows no payload: %s", query, got)
		}
		p.in.c.search(t, "what is watched with "+query, string(got), but...)
	}
}
