package amqp

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// exception closes a channel, or a connection.
type exception struct {
	code uint16
	text string
}

func refuse(code uint16, format string, args ...any) *exception {
	return &exception{code, fmt.Sprintf(format, args...)}
}

type message struct {
	exchange, key string
	properties    properties
	body          []byte
	place         int64 // in its queue
	again         bool  // redelivered
	returned      int64 // how often
	expires       time.Time
}

type binding struct {
	queue *queue
	key   string
}

type exchange struct {
	name, kind          string
	durable, autoDelete bool
	bindings            []binding
}

type queue struct {
	name                           string
	durable, autoDelete, exclusive bool
	owner                          *conn
	args                           table
	ready                          []*message // by place
	unacked                        int
	consumers                      []*consumer
	next                           int
	place                          int64
	timer                          *time.Timer
	deleted                        bool
}

type consumer struct {
	tag      string
	channel  *channel
	queue    *queue
	noAck    bool
	priority int64
	prefetch int
	unacked  int
}

// broker is what a server keeps. Its lock is the server's.
type broker struct {
	mu        *sync.Mutex
	exchanges map[string]*exchange
	queues    map[string]*queue
}

func newBroker(mu *sync.Mutex) *broker {
	return &broker{mu: mu, exchanges: map[string]*exchange{}, queues: map[string]*queue{}}
}

// restart forgets what is not durable.
func (b *broker) restart() {
	for _, q := range b.queues {
		q.stopTimer()
		if !q.durable {
			b.deleteQueue(q)
			continue
		}
		q.ready = slices.DeleteFunc(q.ready, func(m *message) bool { return m.properties.mode != 2 })
	}
	maps.DeleteFunc(b.exchanges, func(_ string, e *exchange) bool { return !e.durable })
}

func (q *queue) stopTimer() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}

// same compares arguments as RabbitMQ does: whole numbers by value.
func same(a, b table) bool {
	plain := func(t table) map[string]any {
		m := map[string]any{}
		for name, v := range t {
			if r := reflect.ValueOf(v); r.CanInt() {
				v = r.Int()
			} else if r.CanUint() {
				v = int64(r.Uint())
			}
			m[name] = v
		}
		return m
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

func (b *broker) declareExchange(e *exchange, passive bool) *exception {
	old := b.exchanges[e.name]
	switch {
	case old == nil && passive:
		return refuse(404, "NOT_FOUND - no exchange '%s' in vhost '/'", e.name)
	case old == nil:
		b.exchanges[e.name] = e
	case !passive && (old.kind != e.kind || old.durable != e.durable || old.autoDelete != e.autoDelete):
		return refuse(406, "PRECONDITION_FAILED - inequivalent arg for exchange '%s' in vhost '/'", e.name)
	}
	return nil
}

func (b *broker) declareQueue(q *queue, passive bool, by *conn) *exception {
	old := b.queues[q.name]
	switch {
	case old == nil && passive:
		return refuse(404, "NOT_FOUND - no queue '%s' in vhost '/'", q.name)
	case old == nil:
		if q.args["x-queue-type"] == "quorum" && (q.exclusive || q.autoDelete || !q.durable) {
			return refuse(406, "PRECONDITION_FAILED - invalid property for queue '%s' of type quorum", q.name)
		}
		if q.exclusive {
			q.owner = by
		}
		b.queues[q.name] = q
	case old.owner != nil && old.owner != by:
		return refuse(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s'", q.name)
	case !passive && (old.durable != q.durable || old.autoDelete != q.autoDelete || old.exclusive != q.exclusive || !same(old.args, q.args)):
		return refuse(406, "PRECONDITION_FAILED - inequivalent arg for queue '%s' in vhost '/'", q.name)
	}
	return nil
}

func (b *broker) bind(queueName, exchangeName, key string) *exception {
	q, e := b.queues[queueName], b.exchanges[exchangeName]
	if q == nil {
		return refuse(404, "NOT_FOUND - no queue '%s' in vhost '/'", queueName)
	}
	if e == nil {
		return refuse(404, "NOT_FOUND - no exchange '%s' in vhost '/'", exchangeName)
	}
	if !slices.Contains(e.bindings, binding{q, key}) {
		e.bindings = append(e.bindings, binding{q, key})
	}
	return nil
}

// deleteQueue deletes a queue, tells its consumers, and with it exchanges that
// nobody else is bound to.
func (b *broker) deleteQueue(q *queue) {
	q.deleted = true
	q.stopTimer()
	delete(b.queues, q.name)
	for _, c := range q.consumers {
		delete(c.channel.consumers, c.tag)
		c.channel.conn.method(c.channel.id, method(60, 30).text(c.tag).octet(1))
	}
	q.consumers = nil
	for name, e := range b.exchanges {
		had := len(e.bindings)
		e.bindings = slices.DeleteFunc(e.bindings, func(b binding) bool { return b.queue == q })
		if e.autoDelete && had > 0 && len(e.bindings) == 0 {
			delete(b.exchanges, name)
		}
	}
}

// route returns the queues that get a message.
func (b *broker) route(exchangeName, key string) ([]*queue, *exception) {
	if exchangeName == "" {
		if q := b.queues[key]; q != nil {
			return []*queue{q}, nil
		}
		return nil, nil
	}
	e := b.exchanges[exchangeName]
	if e == nil {
		return nil, refuse(404, "NOT_FOUND - no exchange '%s' in vhost '/'", exchangeName)
	}
	var to []*queue
	for _, bound := range e.bindings {
		fits := e.kind == "fanout" || e.kind == "direct" && bound.key == key ||
			e.kind == "topic" && matches(strings.Split(bound.key, "."), strings.Split(key, "."))
		if fits && !slices.Contains(to, bound.queue) {
			to = append(to, bound.queue)
		}
	}
	return to, nil
}

func matches(pattern, key []string) bool {
	switch {
	case len(pattern) == 0:
		return len(key) == 0
	case pattern[0] == "#":
		return matches(pattern[1:], key) || len(key) > 0 && matches(pattern, key[1:])
	case len(key) == 0:
		return false
	}
	return (pattern[0] == "*" || pattern[0] == key[0]) && matches(pattern[1:], key[1:])
}

func (q *queue) number(name string) (int64, bool) {
	r := reflect.ValueOf(q.args[name])
	switch {
	case r.IsValid() && r.CanInt():
		return r.Int(), true
	case r.IsValid() && r.CanUint():
		return int64(r.Uint()), true
	}
	return 0, false
}

// full tells that a queue refuses more.
func (q *queue) full() bool {
	most, ok := q.number("x-max-length")
	return ok && q.args["x-overflow"] == "reject-publish" && int64(len(q.ready)) >= most
}

// put puts a copy of a message at the end of a queue.
func (b *broker) put(q *queue, m message) {
	q.place++
	m.place = q.place
	ttl, ok := q.number("x-message-ttl")
	if own, err := strconv.ParseInt(m.properties.texts[bitExpiration], 10, 64); err == nil && (!ok || own < ttl) {
		ttl, ok = own, true
	}
	if ok {
		m.expires = time.Now().Add(time.Duration(ttl) * time.Millisecond)
	}
	q.ready = append(q.ready, &m)
	if most, ok := q.number("x-max-length"); ok && int64(len(q.ready)) > most {
		first := q.ready[0]
		q.ready = q.ready[1:]
		b.bury(q, first, "maxlen")
	}
	b.pump(q)
}

// requeue puts a message back to its place.
func (b *broker) requeue(q *queue, m *message) {
	if q.deleted {
		return
	}
	m.again = true
	m.returned++
	at := sort.Search(len(q.ready), func(i int) bool { return q.ready[i].place > m.place })
	q.ready = slices.Insert(q.ready, at, m)
}

// pump gives out what can be given out, and looks after what expires.
func (b *broker) pump(q *queue) {
	for len(q.ready) > 0 && !q.deleted {
		m := q.ready[0]
		if !m.expires.IsZero() && !time.Now().Before(m.expires) {
			q.ready = q.ready[1:]
			b.bury(q, m, "expired")
			continue
		}
		c := q.free()
		if c == nil {
			break
		}
		q.ready = q.ready[1:]
		c.deliver(m)
	}
	q.stopTimer()
	if len(q.ready) > 0 && !q.ready[0].expires.IsZero() {
		q.timer = time.AfterFunc(time.Until(q.ready[0].expires), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.pump(q)
		})
	}
}

// free returns the consumer whose turn it is, or nil.
func (q *queue) free() *consumer {
	if on, _ := q.args["x-single-active-consumer"].(bool); on {
		if len(q.consumers) > 0 && q.consumers[0].hasRoom() {
			return q.consumers[0]
		}
		return nil
	}
	var best *consumer
	at := 0
	for i := range q.consumers {
		j := (q.next + i) % len(q.consumers)
		if c := q.consumers[j]; c.hasRoom() && (best == nil || c.priority > best.priority) {
			best, at = c, j
		}
	}
	if best != nil {
		q.next = at + 1
	}
	return best
}

func (c *consumer) hasRoom() bool { return c.prefetch == 0 || c.unacked < c.prefetch }

// bury dead-letters a message, or drops it.
func (b *broker) bury(q *queue, m *message, reason string) {
	dlx, ok := q.args["x-dead-letter-exchange"].(string)
	if !ok {
		return
	}
	key := m.key
	if k, ok := q.args["x-dead-letter-routing-key"].(string); ok {
		key = k
	}
	to, wrong := b.route(dlx, key)
	if wrong != nil {
		return
	}
	copied := *m
	copied.exchange, copied.key, copied.again, copied.expires, copied.returned = dlx, key, false, time.Time{}, 0
	copied.properties.headers = deaths(m, q.name, reason)
	copied.properties.texts = maps.Clone(m.properties.texts)
	delete(copied.properties.texts, bitExpiration)
	copied.properties.flags = m.properties.flags&^(1<<bitExpiration) | 1<<bitHeaders
	for _, target := range to {
		b.put(target, copied)
	}
}

// deaths returns the headers of a message that was dead-lettered once more.
func deaths(m *message, queue, reason string) table {
	h := maps.Clone(m.properties.headers)
	if h == nil {
		h = table{}
	}
	old, _ := h["x-death"].([]any)
	entry := table{
		"queue": queue, "reason": reason, "count": int64(1), "exchange": m.exchange,
		"routing-keys": []any{m.key}, "time": time.Now(),
	}
	list := []any{entry}
	for _, d := range old {
		t, _ := d.(table)
		if t["queue"] == queue && t["reason"] == reason {
			n, _ := t["count"].(int64)
			entry["count"] = n + 1
			continue
		}
		list = append(list, d)
	}
	h["x-death"] = list
	if _, ok := h["x-first-death-queue"]; !ok {
		h["x-first-death-queue"], h["x-first-death-reason"], h["x-first-death-exchange"] = queue, reason, m.exchange
	}
	return h
}
