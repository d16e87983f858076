package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
)

type deadLettersCommand struct {
	List    listLetters    `cmd:"" default:"withargs" help:"List events that were given up, the newest first."`
	Show    showLetter     `cmd:"" help:"Show one with its metadata and body."`
	Replay  replayLetters  `cmd:"" help:"Hand events back to the routes that gave them up."`
	Discard discardLetters `cmd:"" help:"Remove events for good."`
}

// lettersPath is where the API has dead letters.
const lettersPath = "/v1.0-penstock/deadletters"

// letterFilter says which dead letters.
type letterFilter struct {
	PubSub   string `name:"pubsub" short:"p" help:"Only those of this pub/sub component."`
	Topic    string `name:"topic" short:"t" help:"Only those of this dead letter topic."`
	Route    string `name:"route" short:"r" help:"Only those that this route gave up: subscription/bus/orders, pipeline/archive."`
	Kind     string `name:"kind" help:"Only those of this kind of error: dropped, invalid, timeout..."`
	Reason   string `name:"reason" help:"Only those whose reason holds this text."`
	Attempts int    `name:"attempts" help:"Only those that were tried at least this often."`
	Since    string `name:"since" help:"Only those given up since then: 2026-01-31T12:00:00Z, or 1h for an hour ago."`
	Until    string `name:"until" help:"Only those given up until then."`
	Filter   string `name:"filter" short:"f" help:"Only those whose event this CEL expression matches: event.data.total > 100."`
}

// fields are those that are set, as the API calls them.
func (f *letterFilter) fields() map[string]any {
	m := map[string]any{
		"pubsub": f.PubSub, "topic": f.Topic, "route": f.Route, "kind": f.Kind, "reason": f.Reason,
		"attempts": f.Attempts, "since": f.Since, "until": f.Until, "filter": f.Filter,
	}
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == "" || v == 0 })
	return m
}

type listLetters struct {
	letterFilter `embed:""`
	apiFlags     `embed:""`
	Limit        int    `name:"limit" short:"n" default:"50" help:"Most that are listed; 0: all."`
	Out          string `name:"output" short:"o" default:"table" enum:"table,json" help:"table or json."`
}

// Run prints the list, of as many pages as it takes.
func (c *listLetters) Run(ctx context.Context, std *stdio) error {
	list, more, err := c.list(ctx)
	if err != nil {
		return err
	}
	if c.Out == "json" {
		return printJSON(std.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(std.out, "no dead letters")
		return err
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTIME\tTOPIC\tROUTE\tEVENT\tATTEMPTS\tREPLAYS\tREASON")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", l.ID, l.Time.Format("2006-01-02T15:04:05Z"),
			l.PubSub+"/"+l.Topic, dash(l.Route), dash(l.EventID), l.Attempts, l.Replays, dash(l.Reason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more {
		_, err = fmt.Fprintf(std.err, "there are more; see them with --limit\n")
	}
	return err
}

func (c *listLetters) list(ctx context.Context) (list []deadletters.Letter, more bool, err error) {
	list = []deadletters.Letter{}
	query := url.Values{}
	for name, v := range c.fields() {
		query.Set(name, fmt.Sprint(v))
	}
	for {
		n := deadletters.MaxLimit
		if c.Limit > 0 {
			n = min(n, c.Limit-len(list))
		}
		query.Set("limit", strconv.Itoa(n))
		var page struct {
			DeadLetters []deadletters.Letter
			Next        string
		}
		if err := c.call(ctx, http.MethodGet, lettersPath+"?"+query.Encode(), nil, &page); err != nil {
			return nil, false, fault.Wrap(err, "list dead letters")
		}
		list = append(list, page.DeadLetters...)
		if page.Next == "" || c.Limit > 0 && len(list) >= c.Limit {
			return list, page.Next != "", nil
		}
		query.Set("page", page.Next)
	}
}

// dash stands for what is not known, and keeps what is on one line.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // it might command the terminal, or turn the line round
			return ' '
		}
		return r
	}, text)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

type showLetter struct {
	apiFlags `embed:""`
	ID       string `arg:"" help:"Which, as list says."`
	Out      string `name:"output" short:"o" default:"text" enum:"text,json,body" help:"text, json, or body: the received bytes alone."`
}

// Run prints one dead letter.
func (c *showLetter) Run(ctx context.Context, std *stdio) error {
	var text json.RawMessage
	if err := c.call(ctx, http.MethodGet, lettersPath+"/"+url.PathEscape(c.ID), nil, &text); err != nil {
		return fault.Wrap(err, "show dead letter")
	}
	if c.Out == "json" {
		return printJSON(std.out, text)
	}
	var l struct {
		deadletters.Letter
		Body       string
		BodyBase64 []byte
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return fault.Wrap(err, "show dead letter: read answer")
	}
	switch {
	case c.Out == "body" && l.BodyBase64 != nil:
		_, err := std.out.Write(l.BodyBase64)
		return err
	case c.Out == "body":
		_, err := io.WriteString(std.out, l.Body)
		return err
	case l.BodyBase64 != nil:
		l.Body = fmt.Sprintf("%d bytes that are no text; see them with --output body", len(l.BodyBase64))
	}
	return printLetter(std.out, &l.Letter, l.Body)
}

func printLetter(out io.Writer, l *deadletters.Letter, body string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"id", l.ID},
		{"topic", l.PubSub + "/" + l.Topic},
		{"event", l.EventID},
		{"type", l.EventType},
		{"source", l.EventSource},
		{"time", l.Time.Format("2006-01-02T15:04:05.000Z")},
		{"reason", l.Reason},
		{"kind", l.Kind},
		{"route", l.Route},
		{"target", l.Target},
		{"origin", l.Origin},
		{"attempts", strconv.Itoa(l.Attempts)},
		{"replays", strconv.Itoa(l.Replays)},
	} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], dash(line[1]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(l.Metadata)) {
		if !strings.HasPrefix(k, "dlq") {
			fmt.Fprintf(w, "metadata\t%s=%s\n", dash(k), dash(l.Metadata[k]))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", body)
	return err
}

// chosen is what something is done with.
type chosen struct {
	letterFilter `embed:""`
	IDs          []string `arg:"" optional:"" name:"id" help:"Which, as list says; or give filters, or --all."`
	All          bool     `name:"all" help:"All of them."`
}

// Validate refuses to guess what is meant. The parser calls it.
func (c *chosen) Validate() error {
	if len(c.IDs) == 0 && !c.All && len(c.fields()) == 0 {
		return fault.New(fault.Invalid, "nothing says which dead letters; give ids, filters such as --topic, or --all")
	}
	return nil
}

// request names them, as the API wants it.
func (c *chosen) request() map[string]any {
	m := c.fields()
	if len(c.IDs) > 0 {
		m["ids"] = c.IDs
	}
	if c.All {
		m["all"] = true
	}
	return m
}

type replayLetters struct {
	chosen     `embed:""`
	apiAddress `embed:""`
	Rate       float64 `name:"rate" placeholder:"N" help:"Events per second; 0: as fast as they are taken."`
	To         string  `name:"to" help:"Publish to pubsub/topic instead of handing them to their routes."`
	Data       string  `name:"data" placeholder:"FILE" help:"Replay one with the body in this file in place of its own; - is standard input."`
	Edit       bool    `name:"edit" help:"Replay one with its body as you leave it in $VISUAL or $EDITOR."`
	Out        string  `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// progress is a line of the answer to a replay.
type progress struct {
	deadletters.Result
	Done    bool   `json:"done"`
	Message string `json:"message"` // of an error
}

// Run replays, and says how far it is about once a second. Interrupted, it
// leaves the rest where it is.
func (c *replayLetters) Run(ctx context.Context, std *stdio) error {
	const doing = "replay dead letters"
	m := c.request()
	if c.Rate != 0 {
		m["rate"] = c.Rate
	}
	if c.To != "" {
		m["to"] = c.To
	}
	if err := c.mend(ctx, std, m); err != nil {
		return fault.Wrap(err, doing)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fault.Wrap(err, doing)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(lettersPath+"/replay"), bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Invalid, "%s: %w", doing, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.open(req)
	if err != nil {
		return fault.Wrap(err, doing)
	}
	defer resp.Body.Close()
	for in := json.NewDecoder(bufio.NewReader(resp.Body)); ; {
		var p progress
		if err := in.Decode(&p); err != nil {
			return fault.New(fault.Unavailable, "%s: it was cut short, and what was not replayed is still there: %w", doing, err)
		}
		switch {
		case p.Message != "":
			return fault.New(fault.Unavailable, "%s: %s", doing, p.Message)
		case p.Done:
			return c.report(std, &p.Result)
		}
		fmt.Fprintf(std.err, "%d of %d: %d replayed, %d failed\n", p.Replayed+p.Failed, p.Matched, p.Replayed, p.Failed)
	}
}

// maxTold bounds the errors that are printed.
const maxTold = 10

func (c *replayLetters) report(std *stdio, r *deadletters.Result) error {
	if c.Out == "json" {
		if err := printJSON(std.out, r); err != nil {
			return err
		}
	} else {
		for i, e := range r.Errors {
			if i == maxTold {
				fmt.Fprintf(std.err, "and more; see them with --output json\n")
				break
			}
			fmt.Fprintf(std.err, "%s: %s\n", e.ID, dash(e.Error))
		}
		fmt.Fprintf(std.out, "replayed %d, failed %d, left %d\n", r.Replayed, r.Failed, r.Left)
	}
	if r.Failed+r.Left > 0 {
		return exitCode(1)
	}
	return nil
}

type discardLetters struct {
	chosen   `embed:""`
	apiFlags `embed:""`
	Out      string `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// Run removes dead letters.
func (c *discardLetters) Run(ctx context.Context, std *stdio) error {
	var res struct {
		Discarded int      `json:"discarded"`
		NotFound  []string `json:"notFound"`
	}
	err := c.call(ctx, http.MethodPost, lettersPath+"/discard", c.request(), &res)
	if err != nil {
		return fault.Wrap(err, "discard dead letters")
	}
	if c.Out == "json" {
		err = printJSON(std.out, res)
	} else {
		for _, id := range res.NotFound {
			fmt.Fprintf(std.err, "%s: there is none\n", dash(id))
		}
		_, err = fmt.Fprintf(std.out, "discarded %d\n", res.Discarded)
	}
	if err == nil && len(res.NotFound) > 0 {
		return exitCode(1)
	}
	return err
}
