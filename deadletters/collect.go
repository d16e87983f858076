package deadletters

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Collect returns the target of a route that reads a dead letter topic. It
// acknowledges what is on the disk, and what another app's Penstock gave up,
// which keeps it itself.
func (k *Keeper) Collect(bus, topic string) func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		if app := d.Metadata[AppKey]; app != "" && app != k.o.App {
			return cloudevents.Acked()
		}
		if err := k.put(ctx, k.newLetter(bus, topic, d)); err != nil {
			return cloudevents.Retried(err, fault.RetryAfter(err))
		}
		return cloudevents.Acked()
	}
}

// Key keeps dead letters of one key in their order: the Key of a route that
// collects.
func Key(d *cloudevents.Delivery) string { return d.Metadata[KeyKey] }

func (k *Keeper) newLetter(bus, topic string, d *cloudevents.Delivery) *Letter {
	m := d.Metadata
	l := &Letter{
		ID: k.id(bus, topic, d), PubSub: bus, Topic: topic,
		Reason: m[ReasonKey], Kind: m[KindKey], Route: m[RouteKey], Target: m[TargetKey], Origin: m[OriginKey],
		Attempts: number(m[AttemptsKey]), Replays: number(m[ReplaysKey]),
		Metadata: m, Body: d.Body,
	}
	var err error
	if l.Time, err = time.Parse(time.RFC3339Nano, m[TimeKey]); err != nil {
		l.Time = time.Now()
	}
	if e, err := pubsub.EventOf(bus, topic, d.Body, m); err == nil {
		l.EventID, l.EventType, l.EventSource = e.ID(), e.Type(), e.Source()
	}
	return l
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// idBytes of a hash make an id of 16 letters and digits. That is short for
// people, and two of a hundred thousand are alike once in 10^14.
const idBytes = 10

// id is made of what was given up, where and when, so a dead letter that the
// broker delivers again has the same. One that does not say when may be alike to
// another, so it gets a fresh one: better twice than not at all.
func (k *Keeper) id(bus, topic string, d *cloudevents.Delivery) string {
	sum := make([]byte, idBytes)
	if d.Metadata[TimeKey] == "" {
		_, _ = rand.Read(sum) // it never fails
	} else {
		h := sha256.New()
		for _, s := range []string{k.o.App, bus, topic} {
			add(h, s)
		}
		for _, key := range slices.Sorted(maps.Keys(d.Metadata)) {
			if strings.HasPrefix(key, "dlq") {
				add(h, key)
				add(h, d.Metadata[key])
			}
		}
		h.Write(d.Body)
		copy(sum, h.Sum(nil))
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum))
}

// add puts s into the hash with its length, so that no two lists look alike.
func add(h hash.Hash, s string) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
	h.Write(n[:])
	h.Write([]byte(s))
}

// original is the metadata that the event had before it was given up.
func (l *Letter) original() map[string]string {
	m := maps.Clone(l.Metadata)
	for _, key := range []string{
		ReasonKey, KindKey, AttemptsKey, RouteKey, TargetKey, TimeKey, OriginKey, AppKey, ReplaysKey, KeyKey,
	} {
		delete(m, key)
	}
	return m
}
