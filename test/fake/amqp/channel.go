package amqp

import (
	"maps"
	"slices"
)

// channel is one channel of a connection.
type channel struct {
	conn    *conn
	id      uint16
	closing bool // an exception was sent and its answer is waited for

	prefetch  int
	consumers map[string]*consumer
	sent      uint64 // delivery tags
	unacked   []unacked

	confirming bool
	received   uint64 // publishes
	confirmed  uint64

	publish *publish // whose content is being received
}

type unacked struct {
	tag      uint64
	message  *message
	consumer *consumer
}

type publish struct {
	message   message
	mandatory bool
	left      uint64
}

func newChannel(c *conn, id uint16) *channel {
	return &channel{conn: c, id: id, consumers: map[string]*consumer{}}
}

func (ch *channel) broker() *broker { return ch.conn.server.broker }

func (ch *channel) say(w *out) *exception {
	ch.conn.method(ch.id, w)
	return nil
}

// take acts on a frame.
func (ch *channel) take(f frame) *exception {
	r := &in{f.payload}
	switch {
	case f.kind == frameMethod:
		class, id := r.short(), r.short()
		if ch.closing {
			if class == 20 && id == 41 {
				delete(ch.conn.channels, ch.id)
			}
			return nil
		}
		return ch.method(class, id, r)
	case ch.closing || ch.publish == nil:
		return nil
	case f.kind == frameHeader:
		r.take(4)
		ch.publish.left = r.huge()
		ch.publish.message.properties = readProperties(r)
	case f.kind == frameBody:
		ch.publish.message.body = append(ch.publish.message.body, f.payload...)
		ch.publish.left -= uint64(len(f.payload))
	}
	if ch.publish.left == 0 {
		p := ch.publish
		ch.publish = nil
		return ch.published(p)
	}
	return nil
}

func (ch *channel) method(class, id uint16, r *in) *exception {
	switch class {
	case 20:
		if id == 10 {
			return ch.say(method(20, 11).longtext(""))
		}
		if id == 40 {
			ch.end()
			delete(ch.conn.channels, ch.id)
			return ch.say(method(20, 41))
		}
	case 40:
		return ch.exchange(id, r)
	case 50:
		return ch.queue(id, r)
	case 60:
		return ch.basic(id, r)
	case 85:
		ch.confirming = true
		return ch.say(method(85, 11))
	}
	return refuse(540, "NOT_IMPLEMENTED - method %d of class %d", id, class)
}

func (ch *channel) exchange(id uint16, r *in) *exception {
	r.short()
	switch id {
	case 10:
		e := &exchange{name: r.text(), kind: r.text()}
		flags := r.octet()
		e.durable, e.autoDelete = flags&2 != 0, flags&4 != 0
		if wrong := ch.broker().declareExchange(e, flags&1 != 0); wrong != nil {
			return wrong
		}
		return ch.say(method(40, 11))
	case 20:
		delete(ch.broker().exchanges, r.text())
		return ch.say(method(40, 21))
	}
	return refuse(540, "NOT_IMPLEMENTED - exchange %d", id)
}

func (ch *channel) queue(id uint16, r *in) *exception {
	r.short()
	name := r.text()
	b := ch.broker()
	switch id {
	case 10:
		flags := r.octet()
		q := &queue{name: name, durable: flags&2 != 0, exclusive: flags&4 != 0, autoDelete: flags&8 != 0, args: r.table()}
		if wrong := b.declareQueue(q, flags&1 != 0, ch.conn); wrong != nil {
			return wrong
		}
		q = b.queues[name]
		return ch.say(method(50, 11).text(name).long(uint32(len(q.ready))).long(uint32(len(q.consumers))))
	case 20:
		if wrong := b.bind(name, r.text(), r.text()); wrong != nil {
			return wrong
		}
		return ch.say(method(50, 21))
	case 40:
		n := 0
		if q := b.queues[name]; q != nil {
			n = len(q.ready)
			b.deleteQueue(q)
		}
		return ch.say(method(50, 41).long(uint32(n)))
	}
	return refuse(540, "NOT_IMPLEMENTED - queue %d", id)
}

func (ch *channel) basic(id uint16, r *in) *exception {
	switch id {
	case 10:
		r.long()
		ch.prefetch = int(r.short())
		return ch.say(method(60, 11))
	case 20:
		return ch.consume(r)
	case 30:
		tag := r.text()
		if c := ch.consumers[tag]; c != nil {
			ch.cancel(c)
		}
		return ch.say(method(60, 31).text(tag))
	case 31: // the client knows that its consumer has ended
		return nil
	case 40:
		r.short()
		ch.publish = &publish{message: message{exchange: r.text(), key: r.text()}, left: 1}
		ch.publish.mandatory = r.octet()&1 != 0
		return nil
	case 80, 90, 120:
		tag, flags := r.huge(), r.octet()
		multiple, requeue := flags&1 != 0, flags&2 != 0
		if id == 90 {
			multiple, requeue = false, flags&1 != 0
		}
		return ch.answer(tag, multiple, func(u unacked) {
			switch q := u.consumer.queue; {
			case id == 80:
			case requeue:
				ch.broker().requeue(q, u.message)
			default:
				ch.broker().bury(q, u.message, "rejected")
			}
		})
	}
	return refuse(540, "NOT_IMPLEMENTED - basic %d", id)
}

func (ch *channel) consume(r *in) *exception {
	r.short()
	name, tag, flags, args := r.text(), r.text(), r.octet(), r.table()
	q := ch.broker().queues[name]
	switch {
	case q == nil:
		return refuse(404, "NOT_FOUND - no queue '%s' in vhost '/'", name)
	case q.owner != nil && q.owner != ch.conn:
		return refuse(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s'", name)
	case ch.consumers[tag] != nil:
		return refuse(530, "NOT_ALLOWED - attempt to reuse consumer tag '%s'", tag)
	}
	c := &consumer{tag: tag, channel: ch, queue: q, noAck: flags&2 != 0, prefetch: ch.prefetch}
	if p, ok := args["x-priority"].(int32); ok {
		c.priority = int64(p)
	}
	ch.consumers[tag] = c
	q.consumers = append(q.consumers, c)
	ch.conn.method(ch.id, method(60, 21).text(tag))
	ch.broker().pump(q)
	return nil
}

// cancel ends a consumer; its last one takes an auto-delete queue with it.
func (ch *channel) cancel(c *consumer) {
	delete(ch.consumers, c.tag)
	q := c.queue
	q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
	if q.autoDelete && len(q.consumers) == 0 && !q.deleted {
		ch.broker().deleteQueue(q)
		return
	}
	ch.broker().pump(q)
}

// deliver sends a message to a consumer.
func (c *consumer) deliver(m *message) {
	ch := c.channel
	ch.sent++
	if !c.noAck {
		ch.unacked = append(ch.unacked, unacked{ch.sent, m, c})
		c.unacked++
		c.queue.unacked++
	}
	p := m.properties
	if m.returned > 0 && c.queue.args["x-queue-type"] == "quorum" {
		p.headers = maps.Clone(p.headers)
		if p.headers == nil {
			p.headers = table{}
		}
		p.headers["x-delivery-count"] = m.returned
		p.flags |= 1 << bitHeaders
	}
	ch.conn.content(ch.id, method(60, 60).text(c.tag).huge(ch.sent).bool(m.again).text(m.exchange).text(m.key), p, m.body)
}

// answer takes messages out of those that wait for an acknowledgement.
func (ch *channel) answer(tag uint64, multiple bool, each func(unacked)) *exception {
	at := slices.IndexFunc(ch.unacked, func(u unacked) bool { return u.tag == tag })
	if at < 0 {
		return refuse(406, "PRECONDITION_FAILED - unknown delivery tag %d", tag)
	}
	from := at
	if multiple {
		from = 0
	}
	answered := slices.Clone(ch.unacked[from : at+1])
	ch.unacked = slices.Delete(ch.unacked, from, at+1)
	var queues []*queue
	for _, u := range answered {
		u.consumer.unacked--
		u.consumer.queue.unacked--
		each(u)
		if !slices.Contains(queues, u.consumer.queue) {
			queues = append(queues, u.consumer.queue)
		}
	}
	for _, q := range queues {
		ch.broker().pump(q)
	}
	return nil
}

// published routes a message.
func (ch *channel) published(p *publish) *exception {
	s := ch.conn.server
	if s.alarm != "" && !ch.conn.blocked {
		ch.conn.blocked = true
		ch.conn.method(0, method(10, 60).text(s.alarm))
	}
	ch.received++
	to, wrong := s.broker.route(p.message.exchange, p.message.key)
	if wrong != nil {
		return wrong
	}
	if len(to) == 0 && p.mandatory {
		w := method(60, 50).short(312).text("NO_ROUTE").text(p.message.exchange).text(p.message.key)
		ch.conn.content(ch.id, w, p.message.properties, p.message.body)
	}
	for _, q := range to {
		if q.full() {
			ch.confirm1(120)
			return nil
		}
	}
	for _, q := range to {
		s.broker.put(q, p.message)
	}
	return nil
}

// confirm1 confirms the newest message alone, by ack or nack.
func (ch *channel) confirm1(id uint16) {
	if !ch.confirming {
		return
	}
	newest := ch.received
	ch.received--
	ch.confirm()
	ch.received, ch.confirmed = newest, newest
	ch.conn.method(ch.id, method(60, id).huge(newest).bool(false))
}

// confirm confirms what has come so far, all at once.
func (ch *channel) confirm() {
	if ch.confirming && ch.received > ch.confirmed && !ch.closing {
		ch.confirmed = ch.received
		ch.conn.method(ch.id, method(60, 80).huge(ch.received).bool(true))
	}
}

// end gives back what the channel has.
func (ch *channel) end() {
	held := ch.unacked
	ch.unacked = nil
	for _, u := range held {
		u.consumer.unacked--
		u.consumer.queue.unacked--
		ch.broker().requeue(u.consumer.queue, u.message)
	}
	for _, c := range ch.consumers {
		ch.cancel(c)
	}
	for _, u := range held {
		ch.broker().pump(u.consumer.queue)
	}
}
