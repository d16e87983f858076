package mqtt

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

const (
	leaseTick  = 200 * time.Millisecond // between two looks
	beatEvery  = 4 * leaseTick          // how often the holder of a lease says that it is there
	staleAfter = 8                      // looks until a holder does not trust what it heard last
	goneAfter  = 20                     // looks until a holder that says nothing counts as gone
	leaseTail  = time.Second            // how long a lease is kept that nobody uses
	probeFor   = 5 * time.Second        // how long a message to oneself may take
	leaseAlive = 3 * time.Second        // keep-alive of the connection
)

// lease is the agreement of several processes about which of them reads for a
// group. It is what stands last, or stood, in a retained message:
//
//	<term> <name>   the holder, who says so every 800 ms
//	gone <name>     by the server, when the connection of <name> was lost
//	(nothing)       the holder has ended
//
// Who finds no holder claims the lease with a higher term. The highest term
// counts, and of two with the same the higher name, so that all come to the same
// end whatever the order they see it in: who sees another that is higher gives
// way. Terms are times, so that a term is higher than those before it.
type lease struct {
	config Config
	topic  string
	client *Client

	mu      sync.Mutex
	users   int
	idle    time.Time     // since when there are none
	running bool          // a goroutine sees to it
	mine    chan struct{} // closed when it is no longer ours; nil while it is not
	err     error         // why nothing is known
	fails   int           // counts those errors
	changed chan struct{} // closed, and made anew, with every change
	name    string        // ours, on this connection
	claimed time.Time     // when we last claimed or said that we are there
	term    int64         // the highest seen
	holder  string        // who has it; empty: nobody
	quiet   int           // looks since the holder was heard of: they stop when this process does
	probed  bool          // our own message has come
	contest bool          // somebody else's message stands where ours should
}

// lease returns that of a name and counts a user, whom leave uncounts.
func (c *Client) lease(name string) *lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.leases[name]
	if l == nil {
		l = &lease{config: c.config, topic: c.config.LeaseTopic + "/" + plainName(name), client: c, changed: make(chan struct{})}
		c.leases[name] = l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	if !l.running && !c.closed {
		l.running = true
		c.running.Add(1)
		go l.run()
	}
	return l
}

func (l *lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.idle = time.Now()
	}
	l.change()
}

// change wakes everybody who waits. The lock is held.
func (l *lease) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// hold waits until the lease is ours. The channel is closed when it no longer is;
// it is nil when somebody else has the lease, where that is not to be waited for.
// An error says that nothing can be known of it.
func (l *lease) hold(ctx context.Context, giveUp bool) (<-chan struct{}, error) {
	for before := -1; ; {
		l.mu.Lock()
		if before < 0 {
			before = l.fails
		}
		mine, err, changed := l.mine, l.err, l.changed
		if mine != nil && l.quiet > staleAfter { // somebody may have it, and we have not heard of it yet
			mine = nil
		}
		if l.fails == before {
			err = nil // from before
		}
		other := l.probed && l.holder != "" && l.holder != l.name && l.quiet < goneAfter
		l.mu.Unlock()
		switch {
		case mine != nil:
			return mine, nil
		case err != nil:
			return nil, err
		case other && giveUp:
			return nil, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// spare tells whether nobody uses the lease any more. The lock is held.
func (l *lease) spare() bool {
	return l.users == 0 && (l.client.ctx.Err() != nil || time.Since(l.idle) >= leaseTail)
}

// run keeps the connection that the lease is seen to on.
func (l *lease) run() {
	defer l.client.running.Done()
	for wait := retryFirst; ; {
		l.mu.Lock()
		if l.client.ctx.Err() != nil || l.spare() {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		err := l.watch()
		l.lose(err)
		if err == nil {
			wait = retryFirst
			continue
		}
		pause(l.client.ctx, wait)
		wait = min(2*wait, retryMost)
	}
}

// lose gives the lease up.
func (l *lease) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
	l.err, l.probed, l.contest = err, false, false
	if err != nil {
		l.fails++
	}
	l.change()
}

func (l *lease) drop() {
	if l.mine != nil {
		close(l.mine)
		l.mine = nil
	}
}

// watch sees to the lease on one connection, until it is lost or nobody needs
// the lease any more.
func (l *lease) watch() error {
	name, lost := rand.Text()[:16], make(chan error, 1)
	l.mu.Lock()
	l.name, l.holder, l.quiet = name, "", 0 // the server tells before our own message who has it
	l.mu.Unlock()
	ctx := l.client.ctx
	w, _, err := l.config.dial(ctx, dialing{
		id: "penstock-" + rand.Text()[:12], clean: true, keepAlive: leaseAlive, silence: leaseAlive,
		will:    &Message{Topic: l.topic, Body: []byte("gone " + name), QoS: 1, Retain: true},
		receive: l.received, lost: func(err error) { lost <- classify(err) },
	})
	if err != nil {
		return fault.Wrap(err, "connect for the lease")
	}
	defer w.close()
	asking, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	if err := w.subscribe(asking, l.topic, 1); err != nil {
		return l.hint(err)
	}
	if err := l.say(asking, w, "probe "+name, false); err != nil {
		return l.hint(err)
	}
	start := time.Now()
	tick := time.NewTicker(leaseTick)
	defer tick.Stop()
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if done, err := l.step(w, start); done || err != nil {
			return err
		}
		select {
		case err := <-lost:
			return fault.Wrap(err, "connection for the lease lost")
		case <-tick.C:
			l.mu.Lock()
			l.quiet++
			l.mu.Unlock()
		case <-changed:
		}
	}
}

// hint says what to do when the topic of leases cannot be used.
func (l *lease) hint(err error) error {
	if k := fault.KindOf(err); k != fault.Denied && k != fault.Timeout {
		return fault.Wrap(classify(err), "agree on who reads")
	}
	return fault.Wrap(err, "use topic %s to agree on who reads (allow that, or set leaseTopic to another topic or to none)", l.topic)
}

// say publishes what stands in the lease, or passes it by.
func (l *lease) say(ctx context.Context, w wire, text string, retain bool) error {
	_, err := w.send(ctx, &Message{Topic: l.topic, Body: []byte(text), QoS: 1, Retain: retain})
	return err
}

// step does what is due. done tells that nobody needs the lease any more.
func (l *lease) step(w wire, start time.Time) (done bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.client.ctx), probeFor)
	defer cancel()
	l.mu.Lock()
	now, was := time.Now(), l.mine != nil
	text := ""
	switch {
	case l.spare():
		l.drop()
		done = true
	case !l.probed:
		if now.Sub(start) > probeFor {
			err = l.hint(fault.New(fault.Denied, "what is published there does not come back"))
		}
	case was && (l.contest || now.Sub(l.claimed) >= beatEvery):
		l.claimed, l.contest = now, false
		text = fmt.Sprintf("%d %s", l.term, l.name)
	case !was && (l.holder == "" || l.quiet >= goneAfter) && now.Sub(l.claimed) >= beatEvery:
		l.claimed = now
		text = fmt.Sprintf("%d %s", max(l.term+1, now.UnixMilli()), l.name)
	}
	l.mu.Unlock()
	switch {
	case done && was:
		wait, err := w.send(ctx, &Message{Topic: l.topic, QoS: 1, Retain: true})
		if err == nil {
			err = wait(ctx)
		}
		_ = err // the next one finds out by the silence
		return true, nil
	case text != "":
		err = l.say(ctx, w, text, true)
	}
	return done, err
}

// received reads what others, and we, say about the lease.
func (l *lease) received(m *Received) {
	if m.ack != nil {
		defer m.ack()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.change()
	word, name, _ := strings.Cut(string(m.Body), " ")
	switch word {
	case "":
		l.vacant(l.holder)
	case "gone":
		l.vacant(name)
	case "probe":
		l.probed = l.probed || name == l.name
	default:
		if term, err := strconv.ParseInt(word, 10, 64); err == nil && name != "" {
			l.claim(term, name)
		}
	}
}

// vacant is told that a holder is gone.
func (l *lease) vacant(name string) {
	switch {
	case l.mine != nil:
		l.contest = true
	case name == l.holder:
		l.holder, l.claimed = "", time.Time{}
	}
}

// claim is told that somebody has the lease.
func (l *lease) claim(term int64, name string) {
	if term < l.term || term == l.term && name < l.holder {
		l.contest = l.mine != nil
		return
	}
	l.term, l.holder, l.quiet = term, name, 0
	switch {
	case name != l.name:
		l.drop()
	case l.mine == nil:
		l.mine = make(chan struct{})
	}
}
