package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// logLevelCommand shows and changes the levels of a running instance's log.
type logLevelCommand struct {
	apiFlags `embed:""`
	Words    []string `arg:"" optional:"" name:"part level" help:"A part and its level, or a level of all parts: debug, info, warn or error; none: show them."`
	Out      string   `name:"output" short:"o" default:"table" enum:"table,json" help:"table or json."`
}

// Validate refuses more than two words. The parser calls it.
func (c *logLevelCommand) Validate() error {
	if len(c.Words) > 2 {
		return fault.New(fault.Invalid, "give a part and a level, a level alone, or nothing")
	}
	return nil
}

// Run prints the levels as they are then.
func (c *logLevelCommand) Run(ctx context.Context, std *stdio) error {
	var answer struct {
		Levels []telemetry.Level `json:"levels"`
	}
	method, body := http.MethodGet, any(nil)
	switch len(c.Words) {
	case 1:
		method, body = http.MethodPut, telemetry.Level{Level: c.Words[0]}
	case 2:
		method, body = http.MethodPut, telemetry.Level{Part: c.Words[0], Level: c.Words[1]}
	}
	if err := c.call(ctx, method, "/v1.0-penstock/loglevels", body, &answer); err != nil {
		return fault.Wrap(err, "log levels")
	}
	if c.Out == "json" {
		return json.NewEncoder(std.out).Encode(answer.Levels)
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PART\tLEVEL")
	for _, l := range answer.Levels {
		fmt.Fprintf(w, "%s\t%s\n", l.Part, l.Level)
	}
	return w.Flush()
}
