package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Listener is told what happens on channels.
type Listener struct {
	// Channels are listened to, all on one connection.
	Channels []string
	// Notified gets each notification. It must not block for long.
	Notified func(channel, payload string)
	// Up is called whenever the connection has been made and listens: what was
	// sent before is not heard of. May be nil.
	Up func()
	// Down is called with the reason whenever it broke or cannot be made. May be
	// nil.
	Down func(error)
}

// The wait between two tries to connect doubles from the first to the last.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
	// A connection on which nothing comes for so long is asked whether it lives.
	quietTime = 15 * time.Second
)

// Listen waits for notifications on a connection of its own until ctx ends, and
// makes it again for ever.
func (db *DB) Listen(ctx context.Context, l Listener) {
	wait := firstWait
	for ctx.Err() == nil {
		begun := time.Now()
		err := db.listen(ctx, l)
		if ctx.Err() != nil {
			return
		}
		if l.Down != nil {
			l.Down(Classify(err))
		}
		if time.Since(begun) > lastWait {
			wait = firstWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		wait = min(2*wait, lastWait)
	}
}

// listen does so on one connection.
func (db *DB) listen(ctx context.Context, l Listener) error {
	c := db.pool.Config().ConnConfig.Copy()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // nothing was written
	}()
	for _, ch := range l.Channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{ch}.Sanitize()); err != nil {
			return err
		}
	}
	if l.Up != nil {
		l.Up()
	}
	for {
		quiet, cancel := context.WithTimeout(ctx, quietTime)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			l.Notified(n.Channel, n.Payload)
		case ctx.Err() != nil || quiet.Err() == nil:
			return err
		default:
			if err := ping(ctx, conn); err != nil {
				return err
			}
		}
	}
}

func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, quietTime/3)
	defer cancel()
	return conn.Ping(ctx)
}
