package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

type topCommand struct {
	apiFlags `embed:""`
	Interval time.Duration `name:"interval" short:"i" default:"2s" help:"How often to look."`
	Window   time.Duration `name:"window" short:"w" default:"10s" help:"What rates and latencies are about: the time that ends now."`
	Looks    int           `name:"iterations" short:"n" help:"End after so many looks; 0: go on until interrupted."`
	Out      string        `name:"output" short:"o" default:"table" enum:"table,json" help:"table, or json: one object a line."`
}

// board is one look.
type board struct {
	Time     time.Time         `json:"time"`
	Routes   []api.Route       `json:"routes"`
	Breakers []api.BreakerInfo `json:"circuitBreakers"`
}

// Run shows what the routes do, again and again.
func (c *topCommand) Run(ctx context.Context, std *stdio) error {
	tick := time.NewTicker(max(c.Interval, 100*time.Millisecond))
	defer tick.Stop()
	for n := 1; ; n++ {
		b, err := c.look(ctx)
		if err == nil {
			err = c.show(std.out, b)
		}
		switch {
		case ctx.Err() != nil:
			return nil // that is how it is ended
		case err != nil:
			return fault.Wrap(err, "top")
		case n == c.Looks:
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *topCommand) look(ctx context.Context) (*board, error) {
	b := &board{Time: time.Now().UTC()}
	path := "/v1.0-penstock/routes?" + url.Values{"window": {c.Window.String()}}.Encode()
	if err := c.call(ctx, http.MethodGet, path, nil, b); err != nil {
		return nil, err
	}
	return b, c.call(ctx, http.MethodGet, "/v1.0/metadata", nil, &struct {
		Breakers *[]api.BreakerInfo `json:"circuitBreakers"`
	}{&b.Breakers})
}

func (c *topCommand) show(out io.Writer, b *board) error {
	if c.Out == "json" {
		return json.NewEncoder(out).Encode(b)
	}
	if c.Looks != 1 && isTerminal(out) {
		fmt.Fprint(out, "\x1b[H\x1b[2J") // up to the left, and nothing there
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ROUTE\tSTATE\tRATE/S\tERRORS/S\tLAG\tIN FLIGHT\tHELD\tWAITING\tP50\tP99\tOLDEST\tBREAKER\tWHY")
	for i := range b.Routes {
		r := &b.Routes[i]
		recent := r.Recent
		if recent == nil {
			recent = &journal.Recent{}
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%s\t%d/%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", dash(r.Name), r.State, recent.Rate, recent.Errors, lag(r), r.InFlight, r.Concurrency,
			r.Held, r.Waiting, some(recent.P50), some(recent.P99), some(recent.Oldest), dash(b.breaker(r.Name)), dash(short(why(r), 60)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, k := range b.Breakers {
		if k.State != "closed" {
			fmt.Fprintf(out, "breaker of %s is %s\n", dash(strings.Join(strings.Fields(k.App+" "+k.Method+" "+k.Component+" "+k.Direction), " ")), k.State)
		}
	}
	_, err := fmt.Fprintln(out)
	return err
}

func why(r *api.Route) string {
	if r.SourceError != "" {
		return r.SourceError
	}
	return r.LastError
}

// lag is what waits at the route's source; a dash where that does not say.
func lag(r *api.Route) string {
	if r.Backlog == nil {
		return "-"
	}
	return strconv.FormatInt(r.Backlog.Messages, 10)
}

// some is a duration; none is a dash.
func some(m journal.Millis) string {
	if m == 0 {
		return "-"
	}
	return millis(m)
}

// breaker is the state of what a route brings in: that of its component. Targets
// that go out have theirs below the table.
func (b *board) breaker(route string) string {
	_, rest, _ := strings.Cut(route, "/")
	component, _, _ := strings.Cut(rest, "/")
	for _, k := range b.Breakers {
		if k.Component == component && k.Direction == "inbound" {
			return k.State
		}
	}
	return ""
}
