package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
)

type listCommand struct {
	Out string `name:"output" short:"o" default:"table" enum:"table,json" help:"table or json."`
}

// row is an instance as Dapr's tools read it from JSON.
type row struct {
	AppID    string    `json:"appId"`
	HTTPPort int       `json:"httpPort"`
	GRPCPort int       `json:"grpcPort"`
	AppPort  int       `json:"appPort"`
	Command  string    `json:"command"`
	Age      string    `json:"age"`
	Created  time.Time `json:"created"`
	PID      int       `json:"daprdPid"`
	Runner   int       `json:"cliPid"` // the one to stop for a clean end of everything
	AppPID   int       `json:"appPid"`
	RunFile  string    `json:"runTemplatePath"`
	AppLog   string    `json:"appLogPath"`
	Log      string    `json:"daprdLogPath"`
}

// Run prints the instances of this user on this machine, one a line.
func (c *listCommand) Run(std *stdio) error {
	list, err := instances.Open().List()
	if err != nil && len(list) == 0 {
		return err
	}
	rows := make([]row, len(list))
	for n, i := range list {
		rows[n] = row{
			i.AppID, i.HTTPPort, i.GRPCPort, i.AppPort, i.Command, age(time.Since(i.Created)), i.Created.Round(time.Second),
			i.Self.PID, cmp.Or(i.Runner.PID, i.Self.PID), i.AppPID, i.RunFile, i.AppLog, i.Log,
		}
	}
	if c.Out == "json" {
		out := json.NewEncoder(std.out)
		out.SetIndent("", "  ")
		return errors.Join(out.Encode(rows), err)
	}
	if len(rows) == 0 {
		fmt.Fprintln(std.out, "nothing runs")
		return err
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP ID\tHTTP PORT\tGRPC PORT\tAPP PORT\tCOMMAND\tAGE\tCREATED\tPID\tAPP PID\tRUN FILE")
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join([]string{
			r.AppID, number(r.HTTPPort), number(r.GRPCPort), number(r.AppPort), cmp.Or(short(r.Command, 30), "-"), r.Age,
			r.Created.Local().Format(time.DateTime), number(r.PID), number(r.AppPID), cmp.Or(r.RunFile, "-"),
		}, "\t"))
	}
	return errors.Join(w.Flush(), err)
}

// number shows zero as nothing.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// age is a duration in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

type stopCommand struct {
	AppIDs  []string      `name:"app-id" short:"a" help:"App to stop; may be repeated."`
	More    []string      `arg:"" optional:"" name:"id" help:"Apps to stop, as with --app-id."`
	RunFile string        `name:"run-file" short:"f" help:"Stop everything that run -f has started from this file, or from the folder that has it."`
	Timeout time.Duration `name:"timeout" help:"How long to wait; the default is the grace period that each was started with, and a little more."`
}

// Run stops instances with SIGTERM, which drains them, and waits for their end.
// Several instances of one app are all stopped.
func (c *stopCommand) Run(ctx context.Context, std *stdio) error {
	ids := slices.Concat(c.AppIDs, c.More)
	if len(ids) == 0 && c.RunFile == "" {
		return fault.New(fault.Invalid, "stop: nothing named; give --app-id or --run-file")
	}
	list, err := instances.Open().List()
	if err != nil && len(list) == 0 {
		return err
	}
	var ends []ending
	if c.RunFile != "" {
		of, err := ofRunFile(list, c.RunFile)
		if err != nil {
			return err
		}
		ends = append(ends, of...)
	}
	for _, id := range ids {
		named, err := find(list, id)
		if err != nil {
			return err
		}
		for _, i := range named {
			ends = append(ends, ending{what: id, p: i.Self, most: i.Grace})
		}
	}
	return c.stop(ctx, std, ends)
}

// ending is a process that is to end.
type ending struct {
	what string
	p    instances.Process
	most time.Duration
}

// stop asks all at once and tells of each when it has ended.
func (c *stopCommand) stop(ctx context.Context, std *stdio, ends []ending) error {
	results := make([]chan error, len(ends))
	for n, e := range ends {
		results[n] = make(chan error, 1)
		go func() { results[n] <- e.p.Stop(ctx, cmp.Or(c.Timeout, e.most+stopRoom)) }()
	}
	var failed []error
	for n, e := range ends {
		if err := <-results[n]; err != nil {
			failed = append(failed, fault.Wrap(err, "stop %s", e.what))
			continue
		}
		fmt.Fprintf(std.out, "stopped %s (process %d)\n", e.what, e.p.PID)
	}
	return errors.Join(failed...)
}

// stopRoom is what a stop may take above the grace period.
const stopRoom = 3 * time.Second

// ofRunFile finds the processes that have started apps from a run file.
func ofRunFile(list []instances.Instance, path string) ([]ending, error) {
	list, err := startedFrom(list, path)
	if err != nil {
		return nil, fault.Wrap(err, "stop")
	}
	var ends []ending
	for _, i := range list {
		n := slices.IndexFunc(ends, func(e ending) bool { return e.p == i.Runner })
		if n < 0 {
			ends = append(ends, ending{what: i.AppID, p: i.Runner, most: i.Grace})
			continue
		}
		ends[n].what += ", " + i.AppID
		ends[n].most = max(ends[n].most, i.Grace)
	}
	if len(ends) == 0 {
		return nil, fault.New(fault.NotFound, "stop: nothing runs that was started from %s", path)
	}
	return ends, nil
}

// startedFrom keeps those that a run file, or the folder that has it, has started.
func startedFrom(list []instances.Instance, path string) ([]instances.Instance, error) {
	full, err := filepath.Abs(path)
	return slices.DeleteFunc(slices.Clone(list), func(i instances.Instance) bool {
		return i.RunFile == "" || i.RunFile != full && i.RunFile != filepath.Join(full, config.RunFileName)
	}), err
}

// find returns the instances of one app.
func find(list []instances.Instance, id string) ([]instances.Instance, error) {
	var named []instances.Instance
	var known []string
	for _, i := range list {
		if i.AppID == id {
			named = append(named, i)
		}
		known = append(known, i.AppID)
	}
	if len(named) > 0 {
		return named, nil
	}
	known = slices.Compact(known) // they are sorted
	hint := "nothing runs"
	if len(known) > 0 {
		hint = "these run: " + strings.Join(known, ", ")
	}
	if near := config.Nearest(id, known); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return nil, fault.New(fault.NotFound, "no running app is called %q; %s", id, hint)
}
