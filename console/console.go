// Package console is the web page for the people who run Penstock, and the way
// from it to the API.
//
// [New] makes the handler of the console's own port out of the handler that
// answers for the API. The page (folder web, built into dist by make console)
// signs in with a token once and then asks for the same JSON that programs get,
// on the same paths; only those in the list of allow.go are passed on. [Token]
// chooses the token.
//
// The package promises that nothing but the page itself is told to a caller
// without a session; that a session is useless to other pages, other sites and
// other programs on this machine's ports, because each request needs a cookie
// that scripts cannot read and a key that only this page's own storage has; that
// no answer of the API is taken for a page; and that it keeps nothing for a
// session, so that there is no number of them to bound: they end by themselves
// after [SessionLife], or with the token.
package console

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

// Options are those of the console.
type Options struct {
	// Token lets people in; [MinToken] bytes at least.
	Token string
	// AllowedHosts are names that the Host header may have besides those of
	// the loopback interface and the address a connection came in on.
	AllowedHosts []string
	// AppID and Version are shown on the page.
	AppID, Version string
	// Check judges YAML documents that somebody writes; it must not show secrets.
	// Nil: there is no check.
	Check func(text []byte) Draft
	// WriteState lets the page set and delete state of the app; else the server
	// refuses it.
	WriteState bool
	// Ending ends what is watched when it is closed, so that a stop need not
	// wait for pages; nil never does.
	Ending <-chan struct{}
	// Logger gets what is wrong; nil discards it. It gets no token.
	Logger *slog.Logger
}

// console is the handler.
type console struct {
	api     http.Handler
	assets  map[string]asset
	hosts   middleware.Hosts
	seal    seal
	about   about
	answers answers
	judge   func(text []byte) Draft
	ending  <-chan struct{}
	log     *slog.Logger
}

// about is what the page is told about the instance when it signs in, and later
// to find out that Penstock was started anew.
type about struct {
	AppID   string    `json:"appId"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// WriteState tells whether state may be set and deleted.
	WriteState bool `json:"writeState"`
	// Key belongs to the session; the page sends it with each request.
	Key string `json:"key"`
}

// New makes the handler of the console. Kind Invalid without a good token.
func New(api http.Handler, o Options) (http.Handler, error) {
	if err := checkToken(o.Token); err != nil {
		return nil, fault.Wrap(err, "make console")
	}
	c := &console{
		api: api, assets: readAssets(), hosts: middleware.NewHosts(o.AllowedHosts), seal: newSeal(o.Token),
		judge: o.Check, ending: o.Ending, log: o.Logger,
		about: about{AppID: o.AppID, Version: o.Version, Started: time.Now(), WriteState: o.WriteState},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// policy lets the page use what comes from its own origin and nothing else, no
// inline scripts or styles either. What Svelte makes elements of is its own
// templates, under that name.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html"

// ServeHTTP implements [http.Handler].
func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control": "no-store",
	} {
		w.Header().Set(name, value)
	}
	path := middleware.Path(r.URL)
	switch {
	case !c.hosts.Allow(r):
		refuse(w, http.StatusForbidden, "this host is not served here; use a loopback address or add the name to --allowed-hosts")
	case !middleware.OwnPage(r):
		refuse(w, http.StatusForbidden, "requests from other web pages are refused; open the address in a new tab")
	case path == sessionPath:
		c.session(w, r)
	case c.asset(w, r, path):
	case !c.signedIn(w, r):
	case path == checkPath && c.judge != nil:
		c.check(w, r)
	default:
		c.pass(w, r, path)
	}
}

// pass hands a request of a session to the API, if it is one for the console.
// None of the browser's headers goes along but what describes the body: there
// are some that would make it another request.
func (c *console) pass(w http.ResponseWriter, r *http.Request, path string) {
	rule, ok := allowed(r.Method, path)
	if !ok {
		refuse(w, http.StatusNotFound, "the console has nothing there")
		return
	}
	if rule.write && !c.about.WriteState {
		refuse(w, http.StatusForbidden, "state is read only here; start Penstock with --console-write-state to change it")
		return
	}
	ask := r.Clone(r.Context())
	ask.Host, ask.Header = "localhost", http.Header{}
	names := []string{"Accept", "Content-Type", "Content-Length", "User-Agent"}
	if rule.write {
		names = append(names, "If-Match") // what somebody else changed meanwhile stays
	}
	for _, name := range names {
		if v := r.Header[name]; len(v) > 0 {
			ask.Header[name] = v
		}
	}
	switch {
	case rule.shared && r.URL.RawQuery == rule.query:
		c.answers.serve(w, ask, path, c.api)
	case rule.watch:
		c.watch(w, ask)
	default:
		c.api.ServeHTTP(w, ask)
	}
}

// refuse answers with an error in the form of the API's.
func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, struct {
		Code    string `json:"errorCode"`
		Message string `json:"message"`
	}{"ERR_CONSOLE", message})
}

// answer writes JSON; that the client is gone is no news.
func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"errorCode":"ERR_CONSOLE","message":"encode answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
