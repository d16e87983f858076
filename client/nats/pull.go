package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/fault"
)

const (
	pullExpires = 30 * time.Second // of one request
	// pullRoom is what the library may hold for us: a request and the words of the
	// server about it.
	pullRoom  = 2 * fetchMost
	lastWords = 2 * time.Second // for what is under way at the end
	// patience is how long a lost connection may be gone until the subscription
	// counts as broken.
	patience = 10 * time.Second
)

// puller asks the server for the messages of one consumer over one subscription.
// The library's Fetch makes a subscription for each request, and when it is
// cancelled it drops what has arrived, which the server then counts as delivered
// and gives again after the ack wait only.
type puller struct {
	nc      *nats.Conn
	sub     *nats.Subscription
	in      chan *nats.Msg
	request string // the subject of requests
	inbox   string
	asked   uint64
	bytes   int
	beat    time.Duration
	back    chan nats.Status // says that a lost connection is there again
	now     func() uint64    // the epoch
	epoch   uint64           // that of what comes
}

// pullRequest is the body of a request, as the server reads it.
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes"`
	Expires  time.Duration `json:"expires"`
	Beat     time.Duration `json:"idle_heartbeat"`
}

// puller begins to listen. close must be called.
func (c *Conn) puller(b *binding, beat time.Duration, now func() uint64) (*puller, error) {
	info := b.consumer.CachedInfo()
	p := &puller{
		nc: c.nc, in: make(chan *nats.Msg, pullRoom), inbox: c.nc.NewInbox() + ".", beat: beat, now: now, epoch: now(),
		request: c.apiPrefix() + "CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name,
		bytes:   max(fetchBytes, 2*int(c.nc.MaxPayload())),
	}
	var err error
	if p.sub, err = c.nc.ChanSubscribe(p.inbox+"*", p.in); err == nil {
		p.back = c.nc.StatusChanged(nats.CONNECTED)
	}
	return p, err
}

// apiPrefix is where the server listens for requests.
func (c *Conn) apiPrefix() string {
	o := c.js.Options()
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// pull asks for n messages and hands over those that come, until all have come,
// the request has expired or went with its connection, or ctx ends.
func (p *puller) pull(ctx context.Context, n int, take func(*nats.Msg)) error {
	p.asked++
	reply := p.inbox + strconv.FormatUint(p.asked, 36)
	body, err := json.Marshal(pullRequest{n, p.bytes, pullExpires, p.beat})
	if err != nil {
		return err
	}
	if err := p.ask(ctx, reply, body); err != nil {
		return err
	}
	silence := time.NewTimer(2 * p.beat)
	defer silence.Stop()
	for n > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.back:
			return nil
		case <-silence.C:
			return p.silent(ctx)
		case m, ok := <-p.in:
			if !ok {
				return nats.ErrConnectionClosed
			}
			silence.Reset(2 * p.beat)
			if p.now() != p.epoch {
				return p.wash()
			}
			if !strings.HasPrefix(m.Subject, p.inbox) {
				take(m)
				n--
				continue
			}
			if m.Subject != reply {
				continue // late word about a request that is over
			}
			if over, err := word(m.Header); over {
				return err
			}
		}
	}
	return nil
}

// wash throws away all that the server sent in an epoch that is over. It is with
// us when the server answers, and may have gone to others since.
func (p *puller) wash() error {
	epoch := p.now()
	_ = p.nc.FlushTimeout(lastWords) // fails with the connection, and then nothing of it comes any more
	for {
		select {
		case _, ok := <-p.in:
			if !ok {
				return nats.ErrConnectionClosed
			}
		default:
			p.epoch = epoch
			return nil
		}
	}
}

// ask sends a request. Without a connection it waits for the next. One that came
// back before the request is no news for it: nobody may take it for lost then and
// ask once more.
func (p *puller) ask(ctx context.Context, reply string, body []byte) error {
	for {
		for len(p.back) > 0 {
			<-p.back // only this goroutine receives
		}
		err := p.nc.PublishRequest(p.request, reply, body)
		if err == nil || p.nc.IsConnected() || p.nc.IsClosed() {
			return err
		}
		if !p.reconnected(ctx) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// silent is why the server does not say that it is alive: nil when the connection
// was lost and is there again.
func (p *puller) silent(ctx context.Context) error {
	if !p.nc.IsConnected() && p.reconnected(ctx) {
		return nil
	}
	return cmp.Or(ctx.Err(), error(jetstream.ErrNoHeartbeat))
}

// reconnected waits for the connection.
func (p *puller) reconnected(ctx context.Context) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.back:
		return true
	case <-limit.C:
	case <-ctx.Done():
	}
	return false
}

// word tells whether what the server says about a request ends it, and how.
func word(h nats.Header) (over bool, err error) {
	text := h.Get("Description")
	switch low := strings.ToLower(text); h.Get("Status") {
	case "100": // a heartbeat
		return false, nil
	case "404", "408": // nothing there, or not in time
		return true, nil
	case "503":
		return true, nats.ErrNoResponders
	case "409":
		switch {
		case strings.Contains(low, "maxbytes"), strings.Contains(low, "batch completed"):
			return true, nil
		case strings.Contains(low, "consumer deleted"):
			return true, jetstream.ErrConsumerDeleted
		case strings.Contains(low, "leadership change"):
			return true, jetstream.ErrConsumerLeadershipChanged
		case strings.Contains(low, "server shutdown"):
			return true, jetstream.ErrServerShutdown
		}
	}
	return true, fault.New(fault.Unavailable, "the server ended a request for messages: %s %s", h.Get("Status"), text)
}

// close ends the subscription and hands over what had come until then. What is
// given back afterwards goes to another request, not to one of ours.
func (p *puller) close(take func(*nats.Msg)) {
	p.nc.RemoveStatusListener(p.back)
	defer func() { _ = p.sub.Unsubscribe() }() // it may be gone already
	if p.nc.IsConnected() && p.sub.Drain() == nil {
		_ = p.nc.FlushTimeout(lastWords) // then all that was under way is here
	}
	for {
		select {
		case m, ok := <-p.in:
			if !ok {
				return
			}
			if !strings.HasPrefix(m.Subject, p.inbox) {
				take(m)
			}
		default:
			return
		}
	}
}
