package rabbitmq

import (
	"context"
	"slices"
)

// verb is how a message is answered.
type verb uint8

const (
	// ack: done with.
	ack verb = iota
	// requeue: back to its place in the queue.
	requeue
	// reject: done with, and dead-lettered where the queue says so.
	reject
)

type answer struct {
	tag  uint64
	verb verb
}

// tags are the delivery tags of one channel that have no answer yet, in order.
// It remembers no more than twice what is without an answer.
type tags struct{ list []tagged }

type tagged struct {
	tag   uint64
	state tagState
}

type tagState uint8

const (
	waiting tagState = iota // for its outcome
	settled                 // acknowledged, the server does not know yet
	told                    // the server knows
)

func (t *tags) add(tag uint64) { t.list = append(t.list, tagged{tag: tag}) }

func (t *tags) find(tag uint64) *tagged {
	i, ok := slices.BinarySearchFunc(t.list, tag, func(e tagged, tag uint64) int {
		switch {
		case e.tag < tag:
			return -1
		case e.tag > tag:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &t.list[i]
}

// tell takes out what must be told the server: one tag that stands for all before
// it, 0 when there is none, and others singly. All that was settled is
// then told.
func (t *tags) tell(singly []uint64) (upTo uint64, _ []uint64) {
	head := 0
	for head < len(t.list) && t.list[head].state != waiting {
		if t.list[head].state == settled {
			upTo = t.list[head].tag
		}
		head++
	}
	t.list = t.list[head:]
	known := 0
	for i := range t.list {
		if e := &t.list[i]; e.state == settled {
			singly = append(singly, e.tag)
			e.state = told
		}
		if t.list[i].state == told {
			known++
		}
	}
	if known > len(t.list)/2 {
		t.list = slices.DeleteFunc(t.list, func(e tagged) bool { return e.state == told })
	}
	return upTo, singly
}

// answer queues an answer; nobody waits for it.
func (k *consumer) answer(tag uint64, v verb) { k.acks.Add(answer{tag, v}, nil) }

// answers writes a batch: one for all of the lowest tags that are settled, one
// for each of the others. On a channel that is closed there is nothing to say:
// the server has taken its messages back.
func (k *consumer) answers(_ context.Context, items []answer) []error {
	k.mu.Lock()
	for _, it := range items {
		e := k.known.find(it.tag)
		if e == nil {
			continue
		}
		if e.state = told; it.verb == ack {
			e.state = settled
		}
	}
	upTo, singly := k.known.tell(nil)
	k.mu.Unlock()
	k.session.out.hold()
	defer k.session.out.release()
	for _, it := range items {
		if it.verb != ack {
			_ = k.ch.Nack(it.tag, false, it.verb == requeue) // errors show in serve
		}
	}
	if upTo > 0 {
		_ = k.ch.Ack(upTo, true)
	}
	for _, tag := range singly {
		_ = k.ch.Ack(tag, false)
	}
	return nil
}
