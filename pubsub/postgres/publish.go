package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// item is one message on its way.
type item struct {
	topic    string
	m        *pubsub.Message
	metadata string
	now      time.Time // that its times are counted from, one for its batch
}

const (
	publishMost  = 512
	publishBytes = 8 << 20
)

// Publish implements pubsub.Driver: all callers' messages go out together.
func (d *driver) Publish(ctx context.Context, topic string, ms []pubsub.Message) error {
	if d.isClosed() {
		return errClosed
	}
	if err := usable(topic); err != nil {
		return fault.Wrap(err, "publish")
	}
	now := time.Now()
	items := make([]item, len(ms))
	for i := range ms {
		items[i] = item{topic: topic, m: &ms[i], metadata: encode(ms[i].Metadata), now: now}
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	if errs := d.publishes.Do(ctx, items...); errs != nil {
		return &pubsub.BatchError{Errs: errs}
	}
	return nil
}

// rows are the columns of a batch.
type rows struct {
	topics, metadata []string
	keys, bodies     [][]byte
	delays, lives    []int64
}

func columns(items []item) rows {
	n := len(items)
	r := rows{
		topics: make([]string, n), metadata: make([]string, n), keys: make([][]byte, n), bodies: make([][]byte, n),
		delays: make([]int64, n), lives: make([]int64, n),
	}
	for i := range items {
		it := &items[i]
		r.topics[i], r.metadata[i], r.bodies[i] = it.topic, it.metadata, it.m.Data
		if it.m.Data == nil {
			r.bodies[i] = []byte{} // nil is NULL
		}
		if it.m.Key != "" {
			r.keys[i] = []byte(it.m.Key)
		}
		if !it.m.DeliverAt.IsZero() {
			r.delays[i] = it.m.DeliverAt.Sub(it.now).Microseconds()
		}
		if !it.m.Expires.IsZero() {
			if r.lives[i] = it.m.Expires.Sub(it.now).Microseconds(); r.lives[i] == 0 {
				r.lives[i] = -1
			}
		}
	}
	return r
}

// write adds a batch in one statement, all of it or nothing.
func (d *driver) write(ctx context.Context, items []item) []error {
	r := columns(items)
	err := d.do(ctx, func(ctx context.Context) error {
		_, err := d.db.Pool().Exec(ctx, d.sql.publish, r.topics, r.keys, r.metadata, r.bodies, r.delays, r.lives)
		return err
	})
	if err != nil {
		return batch.All(len(items), fault.Wrap(err, "write to the table"))
	}
	d.published(items)
	return nil
}

// encode makes a JSON object; empty for none.
func encode(metadata map[string]string) string {
	if len(metadata) == 0 {
		return ""
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return "" // a map of texts always has a form
	}
	return string(text)
}

// decode reads it. What is no object of texts was written by somebody else and
// says nothing to us.
func decode(text *string) (m map[string]string) {
	if text == nil || json.Unmarshal([]byte(*text), &m) != nil {
		return nil
	}
	return m
}
