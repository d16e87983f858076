package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
)

// routesCommand shows and holds up the routes of a running instance.
type routesCommand struct {
	List   listRoutesCommand   `cmd:"" default:"withargs" help:"List the routes: subscriptions, input bindings, pipelines."`
	Pause  pauseRoutesCommand  `cmd:"" help:"Stop handing over a route's events; nothing is lost."`
	Resume resumeRoutesCommand `cmd:"" help:"End a pause."`
}

type listRoutesCommand struct {
	apiFlags `embed:""`
	Out      string `name:"output" short:"o" default:"table" enum:"table,json" help:"table or json."`
}

// Run prints one line for each route.
func (c *listRoutesCommand) Run(ctx context.Context, std *stdio) error {
	var answer struct {
		Routes []api.Route `json:"routes"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1.0-penstock/routes", nil, &answer); err != nil {
		return fault.Wrap(err, "list routes")
	}
	if c.Out == "json" {
		return json.NewEncoder(std.out).Encode(answer.Routes)
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ROUTE\tSTATE\tIN FLIGHT\tWAITING\tDELIVERED\tRETRIED\tDROPPED\tDEAD\tLAST ERROR")
	for _, r := range answer.Routes {
		why := r.SourceError
		if why == "" {
			why = r.LastError
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%d\t%d\t%d\t%d\t%d\t%s\n", r.Name, r.State, r.InFlight, r.Concurrency,
			r.Waiting, r.Delivered, r.Retried, r.Dropped, r.DeadLettered, short(why, 80))
	}
	return w.Flush()
}

// short keeps a table readable.
func short(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

type pauseRoutesCommand struct {
	apiFlags `embed:""`
	Names    []string `arg:"" name:"route" help:"Names as listed."`
}

// Run pauses the routes one after the other.
func (c *pauseRoutesCommand) Run(ctx context.Context, std *stdio) error {
	return c.each(ctx, std, "pause", c.Names)
}

type resumeRoutesCommand struct {
	apiFlags `embed:""`
	Names    []string `arg:"" name:"route" help:"Names as listed."`
}

// Run resumes the routes one after the other.
func (c *resumeRoutesCommand) Run(ctx context.Context, std *stdio) error {
	return c.each(ctx, std, "resume", c.Names)
}

func (f *apiFlags) each(ctx context.Context, std *stdio, verb string, names []string) error {
	for _, name := range names {
		if err := f.call(ctx, http.MethodPost, "/v1.0-penstock/routes/"+verb+"/"+escaped(name), nil, nil); err != nil {
			return fault.Wrap(err, "%s %s", verb, name)
		}
		fmt.Fprintf(std.out, "%sd %s\n", verb, name)
	}
	return nil
}

// escaped makes a name part of a path and keeps its slashes.
func escaped(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}
