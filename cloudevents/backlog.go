package cloudevents

import "time"

// Backlog is what waits for a reader at its source, with what was taken and is not
// settled.
type Backlog struct {
	// Messages is how many there are, or so many at least where counting more of
	// them would cost too much.
	Messages int64
	// Oldest is when the oldest of them was published; zero: the source does not say,
	// or there is none.
	Oldest time.Time
}
