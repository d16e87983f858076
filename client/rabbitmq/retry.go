package rabbitmq

import (
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// retryLife is how long a retry queue is there after its last use, and
	// retryRenew how often it is declared again while in use.
	retryLife, retryRenew = 10 * time.Minute, time.Minute
	// longestDelay is the longest delay that a retry queue has.
	longestDelay = 7 * 24 * time.Hour
	// shortestDelay is what a retry that asks for none waits, doubling with
	// each attempt up to unaskedDelay.
	shortestDelay, unaskedDelay = 50 * time.Millisecond, 30 * time.Second
	retryInfix                  = ".retry."
)

// retryDelay returns how long a retry waits: what was asked for, rounded up so
// that there are few queues.
func retryDelay(asked time.Duration, attempt int) time.Duration {
	if asked <= 0 {
		asked = min(shortestDelay<<min(attempt-1, 20), unaskedDelay)
	}
	asked = min(asked, longestDelay)
	for scale := time.Millisecond; ; scale *= 10 {
		for _, step := range [...]time.Duration{10, 12, 15, 20, 25, 30, 40, 50, 60, 80} {
			if d := step * scale / 10; d%time.Millisecond == 0 && d >= asked {
				return d
			}
		}
	}
}

// retry makes the message that comes back to a queue after a delay. Its type,
// headers and properties are those of d; the user id, which the server takes
// from its owner only, is left out.
func retry(f *Feed, d *amqp.Delivery, attempt int, delay time.Duration) *Message {
	headers := make(amqp.Table, len(d.Headers)+3)
	maps.Copy(headers, d.Headers)
	headers[headerAttempt] = int32(attempt)
	if cc, ok := headers["CC"]; ok {
		delete(headers, "CC")
		headers[headerCC] = cc
	}
	if _, ok := headers[HeaderID]; !ok && d.MessageId == "" {
		headers[HeaderID] = rand.Text()
	}
	if _, ok := headers[HeaderExpires]; !ok && d.Expiration != "" {
		if ms, err := strconv.ParseInt(d.Expiration, 10, 64); err == nil {
			headers[HeaderExpires] = time.Now().UnixMilli() + ms
		}
	}
	queue := retryQueue(f.Queue, delay)
	return &Message{
		Key: queue, Mandatory: true, Topology: retryTopology(f, queue, delay),
		Publishing: amqp.Publishing{
			Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
			DeliveryMode: d.DeliveryMode, Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
			MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
		},
	}
}

func retryQueue(queue string, delay time.Duration) string {
	return fmt.Sprintf("%s%s%d", queue, retryInfix, delay.Milliseconds())
}

// retryTopology is a queue whose messages the server moves to the feed's once
// they have been there for the delay.
func retryTopology(f *Feed, queue string, delay time.Duration) *Topology {
	args := amqp.Table{
		"x-message-ttl":             delay.Milliseconds(),
		"x-expires":                 (delay + retryLife).Milliseconds(),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": f.Queue,
		amqp.QueueTypeArg:           amqp.QueueTypeClassic,
	}
	if f.Quorum { // as safe as the feed's
		args[amqp.QueueTypeArg] = amqp.QueueTypeQuorum
		args["x-dead-letter-strategy"] = "at-least-once"
		args["x-overflow"] = "reject-publish"
	}
	return &Topology{Name: queue, Renew: retryRenew, Make: func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, args)
		return err
	}}
}

// restore undoes what a retry did to the headers, and what the server noted of
// it, and returns how often the message was delivered before.
func restore(f *Feed, d *amqp.Delivery) int {
	if len(d.Headers) == 0 {
		return 0
	}
	attempt := number(d.Headers, headerAttempt)
	if attempt <= 0 {
		return 0
	}
	if cc, ok := d.Headers[headerCC]; ok {
		delete(d.Headers, headerCC)
		d.Headers["CC"] = cc
	}
	ours := func(queue any) bool {
		name, _ := queue.(string)
		return strings.HasPrefix(name, f.Queue+retryInfix)
	}
	for _, which := range [...]string{"x-first-death-", "x-last-death-"} {
		if ours(d.Headers[which+"queue"]) {
			for _, part := range [...]string{"queue", "exchange", "reason"} {
				delete(d.Headers, which+part)
			}
		}
	}
	deaths, _ := d.Headers["x-death"].([]any)
	kept := make([]any, 0, len(deaths))
	for _, death := range deaths {
		if t, ok := death.(amqp.Table); !ok || !ours(t["queue"]) {
			kept = append(kept, death)
		}
	}
	if d.Headers["x-death"] = kept; len(kept) == 0 {
		delete(d.Headers, "x-death")
	}
	return int(min(attempt, 1<<30))
}
