package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// eventsPath is where the API has what happened to events.
const eventsPath = "/v1.0-penstock/events"

// followCommand is penstock tail.
type followCommand struct {
	apiAddress `embed:""`
	Route      string   `name:"route" short:"r" help:"Only this route: subscription/bus/orders; * at the end stands for anything."`
	Type       string   `name:"type" short:"t" help:"Only events of this type; * at the end stands for anything."`
	Outcomes   []string `name:"outcome" help:"Only what ended so: ack, retry, giveback, drop, deadletter, leave; several with commas."`
	ID         string   `name:"id" help:"Only the event of this id."`
	Since      string   `name:"since" help:"Begin with what happened since then: 1m for a minute ago."`
	Payload    bool     `name:"payload" help:"Print the first 4 KiB of the data too."`
	Rate       int      `name:"rate" help:"Most that are shown in a second; 0: 1000."`
	Count      int      `name:"count" short:"n" help:"End after so many; 0: go on until interrupted."`
	Out        string   `name:"output" short:"o" default:"text" enum:"text,json" help:"text, or json: one object a line."`
}

// Run prints what happens to events until somebody interrupts it or the instance
// stops.
func (c *followCommand) Run(ctx context.Context, std *stdio) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(eventsPath+"/watch?"+c.query().Encode()), nil)
	if err != nil {
		return fault.New(fault.Invalid, "make request: %w", err)
	}
	resp, err := c.open(req)
	if err != nil {
		return fault.Wrap(err, "tail")
	}
	defer resp.Body.Close()
	err = c.follow(resp.Body, std)
	if ctx.Err() != nil {
		return nil // that is how it is ended
	}
	return fault.Wrap(err, "tail")
}

func (c *followCommand) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("route", c.Route)
	set("type", c.Type)
	set("id", c.ID)
	set("since", c.Since)
	set("outcome", strings.Join(c.Outcomes, ","))
	if c.Payload {
		q.Set("payload", "true")
	}
	if c.Rate > 0 {
		q.Set("rate", strconv.Itoa(c.Rate))
	}
	return q
}

// maxMessage bounds one message of the stream.
const maxMessage = 1 << 20

// errCut is about a stream that ends without saying so.
var errCut = fault.New(fault.Unavailable, "the connection ended")

func (c *followCommand) follow(stream io.Reader, std *stdio) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxMessage)
	event, shown := "", 0
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "":
			event = ""
		case "event":
			event = value
		case "data":
			over, err := c.show(std, event, []byte(value))
			if err != nil || over {
				return err
			}
			if event == "" {
				shown++
			}
		}
		if c.Count > 0 && shown >= c.Count {
			return nil
		}
	}
	return errors.Join(lines.Err(), errCut)
}

// show prints one message and tells whether it was the last.
func (c *followCommand) show(std *stdio, event string, data []byte) (over bool, err error) {
	switch {
	case event == "end":
		var end struct{ Reason string }
		_ = json.Unmarshal(data, &end)
		fmt.Fprintf(std.err, "penstock: %s\n", dash(end.Reason))
		return true, nil
	case c.Out == "json":
		_, err = fmt.Fprintf(std.out, "%s\n", data)
		return false, err
	case event == "lost":
		var lost struct{ Lost uint64 }
		_ = json.Unmarshal(data, &lost)
		_, err = fmt.Fprintf(std.out, "... %d more, too many to show\n", lost.Lost)
		return false, err
	case event != "":
		return false, nil
	}
	var e journal.Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return false, fault.New(fault.Internal, "read event: %w", err)
	}
	_, err = fmt.Fprintln(std.out, lineOf(&e))
	if err == nil && len(e.Payload) > 0 {
		_, err = fmt.Fprintf(std.out, "    %s\n", dash(string(e.Payload)))
	}
	return false, err
}

// lineOf is an entry on one line.
func lineOf(e *journal.Entry) string {
	words := []string{clock(e.Time), fmt.Sprintf("%-10s", e.Outcome), e.Route, dash(e.ID), dash(e.Type), millis(e.Duration)}
	if n := len(e.Tries); n > 0 {
		words = append(words, e.Tries[n-1].Target)
	}
	if e.Attempt > 1 {
		words = append(words, fmt.Sprintf("attempt %d", e.Attempt))
	}
	if why := because(e.Reason, e.Wait); why != "" {
		words = append(words, why)
	}
	return strings.Join(words, "  ")
}

// because is why something ended as it did, and what follows.
func because(reason string, wait journal.Millis) string {
	var parts []string
	if reason != "" {
		parts = append(parts, dash(reason))
	}
	if wait > 0 {
		parts = append(parts, "again after "+millis(wait))
	}
	return strings.Join(parts, "; ")
}

// clock is a time of this day, as it is here.
func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

// millis is a duration that is easy to read.
func millis(m journal.Millis) string {
	d := time.Duration(m)
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
