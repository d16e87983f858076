package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

type traceCommand struct {
	apiFlags `embed:""`
	ID       string `arg:"" name:"event-id" help:"The event's id."`
	Out      string `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// way is all that is known of an event.
type way struct {
	ID          string               `json:"id"`
	TraceID     string               `json:"traceId,omitempty"`
	Rounds      []journal.Entry      `json:"rounds"`
	DeadLetters []deadletters.Letter `json:"deadLetters"`
	// Unasked is why dead letters are not known: the Configuration may deny them.
	Unasked string `json:"deadLettersError,omitempty"`
	// Related are ids of other events of the same trace, the oldest first.
	Related []string `json:"related"`
}

// Run prints the way of one event, as far as it is remembered.
func (c *traceCommand) Run(ctx context.Context, std *stdio) error {
	w, err := c.find(ctx)
	if err != nil {
		return fault.Wrap(err, "trace %s", c.ID)
	}
	if len(w.Rounds)+len(w.DeadLetters) == 0 {
		return fault.New(fault.NotFound, "trace %s: nothing is known of it: it has not come yet, or was longer ago than the journal goes back", c.ID)
	}
	if c.Out == "json" {
		return printJSON(std.out, w)
	}
	return w.print(std)
}

func (c *traceCommand) find(ctx context.Context) (*way, error) {
	w := &way{ID: c.ID, DeadLetters: []deadletters.Letter{}, Related: []string{}}
	var err error
	if w.Rounds, err = c.events(ctx, "id", c.ID); err != nil {
		return nil, err
	}
	var page struct{ DeadLetters []deadletters.Letter }
	query := url.Values{"filter": {"event.id == " + strconv.Quote(c.ID)}, "limit": {strconv.Itoa(deadletters.MaxLimit)}}
	if err := c.call(ctx, http.MethodGet, lettersPath+"?"+query.Encode(), nil, &page); err != nil {
		w.Unasked = err.Error()
	}
	w.DeadLetters = append(w.DeadLetters, page.DeadLetters...)
	for _, e := range w.Rounds {
		w.TraceID = e.TraceID
	}
	if w.TraceID == "" {
		return w, nil
	}
	others, err := c.events(ctx, "trace", w.TraceID)
	for _, e := range others {
		if e.ID != c.ID && !slices.Contains(w.Related, e.ID) {
			w.Related = append(w.Related, e.ID)
		}
	}
	return w, err
}

func (c *traceCommand) events(ctx context.Context, by, value string) ([]journal.Entry, error) {
	var answer struct{ Events []journal.Entry }
	query := url.Values{by: {value}, "limit": {"1000"}}
	err := c.call(ctx, http.MethodGet, eventsPath+"?"+query.Encode(), nil, &answer)
	return answer.Events, err
}

func (w *way) print(std *stdio) error {
	out := std.out
	fmt.Fprintf(out, "event %s", dash(w.ID))
	if len(w.Rounds) > 0 {
		e := &w.Rounds[0]
		fmt.Fprintf(out, ", %s from %s, %d bytes", dash(e.Type), dash(e.Source), e.Size)
		if e.Subject != "" {
			fmt.Fprintf(out, ", subject %s", dash(e.Subject))
		}
	}
	fmt.Fprintln(out)
	if w.TraceID != "" {
		fmt.Fprintf(out, "trace %s\n", dash(w.TraceID))
	}
	if len(w.Rounds) > 0 {
		fmt.Fprintln(out)
		t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "BEGAN\tWHERE\tROUND\tATTEMPT\tOUTCOME\tTOOK\tWHY")
		for i := range w.Rounds {
			printRound(t, &w.Rounds[i])
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, l := range w.DeadLetters {
		fmt.Fprintf(out, "\ndead letter %s in %s/%s, given up at %s after %s: %s\n  penstock deadletters show %s\n",
			l.ID, dash(l.PubSub), dash(l.Topic), l.Time.UTC().Format(time.RFC3339), attempts(l.Attempts), dash(l.Reason), l.ID)
	}
	if w.Unasked != "" {
		fmt.Fprintf(out, "\ndead letters are not known: %s\n", dash(w.Unasked))
	}
	for i, id := range w.Related {
		if i == 0 {
			fmt.Fprint(out, "\nother events of the trace:\n")
		}
		fmt.Fprintf(out, "  %s\n", dash(id))
	}
	return nil
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return strconv.Itoa(n) + " attempts"
}

// printRound prints a round and its tries.
func printRound(t *tabwriter.Writer, e *journal.Entry) {
	began := e.Time.Add(-time.Duration(e.Duration))
	if e.Outcome == journal.UnderWay {
		began = e.Time
	}
	fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", clock(began), dash(e.Route), e.Round, e.Attempt, e.Outcome, millis(e.Duration), because(e.Reason, e.Wait))
	for _, try := range e.Tries {
		why := ""
		if try.Reason != e.Reason {
			why = because(try.Reason, 0)
		}
		fmt.Fprintf(t, "%s\t  -> %s\t\t\t%s\t%s\t%s\n", clock(began.Add(time.Duration(try.After))), dash(try.Target), try.Outcome, millis(try.Duration), why)
	}
}
