// Command penstock moves CloudEvents between input bindings, apps and output
// bindings, and speaks Dapr's APIs and YAML.
//
// Run `penstock --help` for the commands. A binary, or a link, called daprd
// behaves as `penstock serve`.
//
// The exit code is 0 after a clean stop, 1 when something failed, and 2 when
// the command line cannot be understood.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/runtime"
)

// commands is the whole command line.
type commands struct {
	Serve    serveCommand       `cmd:"" help:"Run Penstock beside an app: bindings, pub/sub, pipelines, HTTP and gRPC APIs."`
	Run      runCommand         `cmd:"" help:"Run an app with Penstock beside it, or all apps of a run file."`
	List     listCommand        `cmd:"" help:"List what runs: apps, ports, processes."`
	Stop     stopCommand        `cmd:"" help:"Stop what serve, run or run -f has started, and wait until it has ended."`
	Logs     logsCommand        `cmd:"" help:"Print the log files of an app."`
	Console  consoleCommand     `cmd:"" help:"Print the address of the console of a running Penstock, to open in a browser."`
	Routes   routesCommand      `cmd:"" help:"List, pause and resume the routes of a running Penstock."`
	Letters  deadLettersCommand `cmd:"" name:"deadletters" help:"List, show, replay and discard events that were given up."`
	Tail     followCommand      `cmd:"" help:"Follow what happens to events in a running Penstock."`
	Trace    traceCommand       `cmd:"" help:"Show the whole way of one event: rounds, tries, dead letter."`
	Top      topCommand         `cmd:"" help:"Show what the routes do now: rates, latencies, errors."`
	LogLevel logLevelCommand    `cmd:"" name:"loglevel" help:"Show the levels of a running Penstock's log, or change one."`
	Publish  publishCommand     `cmd:"" help:"Publish an event through a running Penstock."`
	CA       caCommand          `cmd:"" name:"ca" help:"Make a certificate authority for development, and issue identities of apps."`
	Doctor   doctorCommand      `cmd:"" help:"Look for what keeps Penstock from working, and say what to do."`
	Check    checkCommand       `cmd:"" help:"Check a configuration and report every error in it."`
	Describe describeCommand    `cmd:"" help:"Describe a component, or list those of this build."`
	Schema   schemaCommand      `cmd:"" help:"Print the JSON schema of the YAML documents."`
	Version  versionCommand     `cmd:"" help:"Print the version."`
}

// exitCode ends the program with a code and nothing more to say.
type exitCode int

// Error names the code.
func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// stdio is where a command reads and writes.
type stdio struct {
	out, err io.Writer
}

// run is main with its surroundings as values. It returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: after the first, the default
	// action is back.
	context.AfterFunc(ctx, stop)

	var cli commands
	code := -1
	parser, err := kong.New(&cli,
		kong.Name("penstock"),
		kong.Description("Events in, through one router, to your app and out again."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(c int) { code = c }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&stdio{stdout, stderr}),
		kong.WithHyphenPrefixedParameters(true), // --app-max-concurrency -1
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "penstock:", err)
		return 1
	}
	words := asServe(args)
	if len(words) == 0 {
		parser.Stdout = stderr
		_, _ = parser.Parse([]string{"--help"}) // it prints; there is nothing to run
		return 2
	}
	parsed, err := parser.Parse(words)
	if code >= 0 { // --help has printed what was asked for
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "penstock: %s\nRun \"penstock --help\" for the commands and \"penstock COMMAND --help\" for flags.\n", misread(err))
		return 2
	}
	return report(parsed.Run(), stderr)
}

// misread says in our words what cannot be understood in a command line.
func misread(err error) string {
	text := err.Error()
	for _, m := range [][2]string{
		{"expected a valid 64 bit int but got", "want a whole number, not"},
		{"expected int value but got", "want a whole number, not"},
		{"expected duration but got", "want a duration such as 3s, not"},
		{"bool value must be true, 1, yes, false, 0 or no but got", "want true or false, not"},
		{"missing flags: ", "missing flag: "},
		{"expected \"<dir> ...\"", "missing argument: the folder to check"},
	} {
		text = strings.Replace(text, m[0], m[1], 1)
	}
	return text
}

// report prints an error for people and returns the exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if c, ok := errors.AsType[exitCode](err); ok {
		return int(c)
	}
	if ps, ok := errors.AsType[config.Problems](err); ok {
		fmt.Fprintf(stderr, "%s\n\npenstock: the configuration has %s\n", err, runtime.Count(len(ps), "error"))
		return 1
	}
	fmt.Fprintln(stderr, "penstock:", err)
	return 1
}

// asServe returns the words to parse: a binary called daprd has no commands of
// its own, and tooling that was written for it gives flags at once, long ones
// with a single dash too.
func asServe(args []string) []string {
	words := slices.Clone(args[1:])
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	if name == "daprd" {
		words = append([]string{"serve"}, words...)
	}
	if len(words) == 0 || words[0] != "serve" {
		return words
	}
	for i, w := range words {
		if singleDash.MatchString(w) {
			words[i] = "-" + w
		}
	}
	return words
}

// singleDash is a long flag of serve behind one dash, as in -app-id.
var singleDash = regexp.MustCompile(`^-[a-z][a-z-]+`)
