package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/penstock-io/penstock/middleware"
)

const (
	hostName = "http_handler"
	i32      = api.ValueTypeI32
	i64      = api.ValueTypeI64

	// kinds of headers and bodies.
	ofRequest  = 0
	ofResponse = 1
)

// call is one call of a host function.
type call struct {
	*exchange
	ctx    context.Context
	memory api.Memory
	stack  []uint64
}

// function is one that the guest may call.
type function struct {
	name   string
	params int // all of them i32
	result []api.ValueType
	early  bool // also when there is no request
	run    func(c *call)
}

// functions are those of the ABI, in the order of its document.
func functions() []function {
	number, pair := []api.ValueType{i32}, []api.ValueType{i64}
	field := func(get func(c *call) string) func(c *call) {
		return func(c *call) { c.returns(uint64(c.put(c.number(0), c.number(1), get(c)))) }
	}
	return []function{
		{"get_config", 2, number, true, field(func(c *call) string { return c.pool.o.Config })},
		{"enable_features", 1, number, true, (*call).enable},
		{"log", 3, nil, true, (*call).say},
		{"log_enabled", 1, number, true, (*call).heard},
		{"get_header_names", 3, pair, false, func(c *call) { c.list(1, names(c.headers(), c.host())) }},
		{"get_header_values", 5, pair, false, func(c *call) { c.list(3, c.values(c.text(1))) }},
		{"set_header_value", 5, nil, false, func(c *call) { c.change(func(h http.Header, k, v string) { h[k] = []string{v} }) }},
		{"add_header_value", 5, nil, false, func(c *call) { c.change(func(h http.Header, k, v string) { h[k] = append(h[k], v) }) }},
		{"remove_header", 3, nil, false, (*call).remove},
		{"read_body", 3, pair, false, (*call).read},
		{"write_body", 3, nil, false, (*call).write},
		{"get_method", 2, number, false, field(func(c *call) string { return c.r.Method })},
		{"set_method", 2, nil, false, (*call).setMethod},
		{"get_uri", 2, number, false, field(func(c *call) string { return uri(c.r) })},
		{"set_uri", 2, nil, false, (*call).setURI},
		{"get_protocol_version", 2, number, false, field(func(c *call) string { return c.r.Proto })},
		{"get_source_addr", 2, number, false, field(func(c *call) string { return c.r.RemoteAddr })},
		{"get_status_code", 0, number, false, func(c *call) { c.returns(uint64(max(c.status, http.StatusOK))) }},
		{"set_status_code", 1, nil, false, (*call).setStatus},
	}
}

// offer makes the functions known to guests.
func (p *pool) offer(ctx context.Context) error {
	b := p.runtime.NewHostModuleBuilder(hostName)
	for _, f := range functions() {
		run := func(ctx context.Context, m api.Module, stack []uint64) {
			c := &call{exchange: ctx.Value(exchangeKey{}).(*exchange), ctx: ctx, memory: m.Memory(), stack: stack}
			if c.r == nil && !f.early {
				refuse("%s is called when there is no request", f.name)
			}
			f.run(c)
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(run), slices.Repeat([]api.ValueType{i32}, f.params), f.result).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// refuse ends the guest.
func refuse(format string, args ...any) {
	panic(&trap{fmt.Sprintf(format, args...), http.StatusInternalServerError})
}

func (c *call) number(i int) uint32   { return api.DecodeU32(c.stack[i]) }
func (c *call) returns(result uint64) { c.stack[0] = result }

// bytes is a part of the guest's memory: its place and length are parameters.
func (c *call) bytes(i int) []byte {
	b, ok := c.memory.Read(c.number(i), c.number(i+1))
	if !ok {
		refuse("it names memory that it does not have")
	}
	return b
}

func (c *call) text(i int) string { return string(c.bytes(i)) }

// put writes a text into the guest's memory if it fits, and returns its length.
func (c *call) put(at, limit uint32, text string) uint32 {
	if length := uint32(len(text)); length <= limit && length > 0 && !c.memory.WriteString(at, text) {
		refuse("it names memory that it does not have")
	}
	return uint32(len(text))
}

// list returns texts, each with a NUL behind it, to where parameter i says.
func (c *call) list(i int, texts []string) {
	if len(texts) == 0 {
		c.returns(0)
		return
	}
	length := c.put(c.number(i), c.number(i+1), strings.Join(texts, "\x00")+"\x00")
	c.returns(uint64(len(texts))<<32 | uint64(length))
}

// enable switches features on: for all requests when there is none yet.
func (c *call) enable() {
	c.features |= c.number(0) & (bufferRequest | bufferResponse)
	c.returns(bufferRequest | bufferResponse)
}

func level(n uint32) slog.Level {
	switch int32(n) {
	case -1:
		return slog.LevelDebug
	case 0:
		return slog.LevelInfo
	case 1:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func (c *call) say() {
	if int32(c.number(0)) > 2 {
		return
	}
	c.pool.log.Log(c.ctx, level(c.number(0)), "A guest says", "text", cut(c.text(1), maxLog))
}

func (c *call) heard() {
	if int32(c.number(0)) <= 2 && c.pool.log.Enabled(c.ctx, level(c.number(0))) {
		c.returns(1)
		return
	}
	c.returns(0)
}

// headers are those of the kind that parameter 0 says; trailers are none.
func (c *call) headers() http.Header {
	switch c.number(0) {
	case ofRequest:
		return c.r.Header
	case ofResponse:
		return c.header
	}
	return nil
}

// host is the header Host, which stands beside the others.
func (c *call) host() string {
	if c.number(0) == ofRequest {
		return c.r.Host
	}
	return ""
}

func names(h http.Header, host string) []string {
	list := make([]string, 0, len(h)+1)
	for name := range h {
		list = append(list, strings.ToLower(name))
	}
	if host != "" {
		list = append(list, "host")
	}
	slices.Sort(list)
	return list
}

func (c *call) values(name string) []string {
	if key := http.CanonicalHeaderKey(name); key != "Host" {
		return c.headers()[key]
	}
	if host := c.host(); host != "" {
		return []string{host}
	}
	return nil
}

// writable returns the headers and the name in them; no name is one that the
// guest need not care about.
func (c *call) writable() (http.Header, string) {
	h, name := c.headers(), c.text(1)
	if h == nil {
		refuse("it changes trailers, which are not supported")
	}
	if c.number(0) == ofRequest && c.responding {
		refuse("it changes a request that has been passed on")
	}
	if c.number(0) == ofResponse && c.sent {
		refuse("it changes an answer that has been sent, without feature buffer_response")
	}
	key := http.CanonicalHeaderKey(name)
	if key == "Content-Length" {
		return h, ""
	}
	if err := middleware.CheckHeader("name", name); err != nil {
		refuse("it changes header %q, which it may not", cut(name, 64))
	}
	return h, key
}

// change sets or adds a header.
func (c *call) change(by func(h http.Header, name, value string)) {
	h, name := c.writable()
	value := c.text(3)
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		refuse("it gives header %q a value that no header may have", cut(name, 64))
	}
	if c.added += len(name) + len(value); c.added > maxHeaders {
		refuse("it adds more than %d bytes of headers", maxHeaders)
	}
	if name != "" {
		by(h, name, value)
	}
}

func (c *call) remove() {
	if h, name := c.writable(); name != "" {
		delete(h, name)
	}
}

const end = 1 << 32 // beside a length: nothing comes after it

// read returns the next part of a body.
func (c *call) read() {
	room := c.bytes(1)
	if len(room) == 0 {
		refuse("it reads a body into nothing")
	}
	if c.number(0) == ofResponse {
		n := copy(room, c.unread)
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.returns(end | uint64(n))
			return
		}
		c.returns(uint64(n))
		return
	}
	if c.number(0) != ofRequest || c.responding {
		refuse("it reads a body that is not there to be read")
	}
	n, ended := c.receive(room)
	if c.took = true; c.features&bufferRequest != 0 {
		if len(c.kept)+n > maxBody {
			panic(&trap{"it keeps a body that is longer than it may be", http.StatusRequestEntityTooLarge})
		}
		c.kept = append(c.kept, room[:n]...)
	}
	if ended {
		c.returns(end | uint64(n))
		return
	}
	c.returns(uint64(n))
}

// receive reads from the request, for no longer than the guest has time.
func (c *call) receive(room []byte) (n int, ended bool) {
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return 0, true
	}
	stop := context.AfterFunc(c.ctx, func() {
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Unix(1, 0)) // without one it is in memory
	})
	defer stop()
	for n == 0 {
		var err error
		switch n, err = c.r.Body.Read(room); {
		case errors.Is(err, io.EOF):
			return n, true
		case c.ctx.Err() != nil:
			panic(&trap{"it waits too long for a body", http.StatusGatewayTimeout})
		case err != nil:
			panic(&trap{"it reads a body that is broken", http.StatusBadRequest})
		}
	}
	return n, false
}

// write puts something behind what was written before; the first takes the place
// of the body.
func (c *call) write() {
	part := c.bytes(1)
	switch c.number(0) {
	case ofRequest:
		if c.responding {
			refuse("it changes a request that has been passed on")
		}
		c.newBody, c.renewed = append(c.newBody, part...), true
	case ofResponse:
		if c.sent {
			refuse("it changes an answer that has been sent, without feature buffer_response")
		}
		if !c.replaced {
			c.body, c.replaced = nil, true
		}
		c.body = append(c.body, part...)
	default:
		refuse("it writes a body of a kind that is none")
	}
	if len(c.newBody)+len(c.body) > maxBody {
		refuse("it writes more than %d bytes", maxBody)
	}
}

func (c *call) setMethod() {
	method := c.text(0)
	if c.responding || method == "" || len(method) > 32 || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
		refuse("it gives the request a method that is none")
	}
	c.r.Method = method
}

// uri is the path and the query of a request, as they were sent.
func uri(r *http.Request) string {
	path := middleware.Path(r.URL)
	if r.URL.ForceQuery || r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	return path
}

func (c *call) setURI() {
	text := c.text(0)
	u, err := url.ParseRequestURI(text)
	if c.responding || err != nil || !strings.HasPrefix(text, "/") {
		refuse("it gives the request a URI that is none")
	}
	out := *c.r.URL
	out.Path, out.RawPath, out.RawQuery, out.ForceQuery = u.Path, u.RawPath, u.RawQuery, u.ForceQuery
	c.r.URL, c.r.RequestURI = &out, out.RequestURI()
}

func (c *call) setStatus() {
	status := int(c.number(0))
	if status < 200 || status > 599 || c.sent {
		refuse("it sets status %d, which is none or too late", status)
	}
	c.status = status
}
