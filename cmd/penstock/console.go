package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/penstock-io/penstock/console"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
	"github.com/penstock-io/penstock/runtime"
)

// defaultConsolePort is that of the console when nothing else is said.
const defaultConsolePort = 3580

// consoleAt is where the console is.
type consoleAt struct {
	usual          bool // the command has one unless told otherwise
	address, token string
}

// listenConsole opens the port of the console, if there is to be one.
func (f *serveFlags) listenConsole(o *runtime.Options, log *slog.Logger) error {
	on := f.console.usual || f.ConsolePort != nil
	if f.EnableConsole != nil {
		on = *f.EnableConsole
	}
	if !on {
		return nil
	}
	token, err := console.Token(os.Getenv("PENSTOCK_CONSOLE_TOKEN"), o.DataDir)
	switch {
	case token == "":
		return err
	case err != nil:
		log.Warn("Console: open pages will not go on after the next start", "error", err)
	}
	host, port := cmp.Or(f.ConsoleListenAddress, "127.0.0.1"), defaultConsolePort
	if f.ConsolePort != nil {
		port = *f.ConsolePort
	}
	l, err := listenTCP(host, port, "--console-port")
	if err != nil && f.ConsolePort == nil && errors.Is(err, syscall.EADDRINUSE) {
		l, err = listenTCP(host, 0, "--console-port")
	}
	if err != nil {
		return err
	}
	o.Console, o.ConsoleToken, o.ConsoleWriteState = []net.Listener{l}, token, f.ConsoleWriteState
	f.console.address, f.console.token = "http://"+reachable(l.Addr())+"/", token
	log.Info("Console listening; penstock console prints the address to open", "address", l.Addr().String())
	return nil
}

// reachable is an address that a browser on this machine can open.
func reachable(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
	}
	return a.String()
}

type consoleCommand struct {
	AppID string `name:"app-id" short:"a" help:"App whose console is meant; all when empty."`
	Out   string `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// Run prints addresses with the token in their fragment, which browsers send to
// nobody.
func (c *consoleCommand) Run(std *stdio) error {
	list, err := instances.Open().List()
	if err != nil && len(list) == 0 {
		return err
	}
	if c.AppID != "" {
		if list, err = find(list, c.AppID); err != nil {
			return err
		}
	}
	type line struct {
		AppID string `json:"appId"`
		URL   string `json:"url"`
	}
	lines := []line{}
	for _, i := range list {
		if i.Console != "" {
			lines = append(lines, line{i.AppID, i.Console + "#token=" + url.QueryEscape(i.ConsoleToken)})
		}
	}
	switch {
	case len(lines) == 0:
		return fault.New(fault.NotFound, "open console: %s; penstock serve has one with --console-port", noConsole(list))
	case c.Out == "json":
		return json.NewEncoder(std.out).Encode(lines)
	case len(lines) == 1:
		_, err = fmt.Fprintln(std.out, lines[0].URL)
		return err
	}
	for _, l := range lines {
		fmt.Fprintf(std.out, "%s\t%s\n", dash(l.AppID), l.URL)
	}
	return nil
}

// noConsole says why there is nothing to open.
func noConsole(list []instances.Instance) string {
	if len(list) == 0 {
		return "nothing runs"
	}
	var ids []string
	for _, i := range list {
		ids = append(ids, i.AppID)
	}
	return "there is none of " + strings.Join(slices.Compact(ids), ", ")
}
