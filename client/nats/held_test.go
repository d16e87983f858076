package nats

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// delivered is a message as a server delivers it.
func delivered(seq, times uint64) *nats.Msg {
	return &nats.Msg{Subject: "orders", Reply: fmt.Sprintf("$JS.ACK.stream.consumer.%d.%d.%d.1.0", times, seq, seq), Sub: &nats.Subscription{}}
}

// A server may deliver what was given back once more as if it were new.
func TestWhatIsHeldIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	h := newHeld(t.Context(), nil, ConsumerOptions{}, func(msg string, args ...any) { t.Log(msg, args) })
	born := time.Unix(1, 0)
	b := &binding{place: h.place("stream", born), born: born}
	for _, row := range []struct {
		seq, times uint64
		taken      bool
	}{
		{1, 1, true},
		{2, 2, true},
		{2, 1, false},
		{1, 1, false},
		{1, 2, true}, // its time was up
		{3, 1, true},
	} {
		if x := h.take(b, &round{}, delivered(row.seq, row.times)); (x != nil) != row.taken {
			t.Errorf("message %d, delivered %d times: taken is %t", row.seq, row.times, x != nil)
		}
	}
	x := h.first.prev
	h.unlink(x)
	if h.take(b, &round{}, delivered(x.seq, 1)) == nil {
		t.Error("a message that is not held any more is not taken")
	}
}
