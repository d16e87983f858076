// Command run starts the servers that tests need, installs what is missing on a
// Debian machine when it runs as root, and stops them.
//
//	run [-only redis,nats] COMMAND ARGS...   run the command with their addresses
//	run [-only redis,nats]                   print the addresses, hold until Ctrl-C
//	run [-only redis,nats] -test [PACKAGES]  run the tests of real servers, print a table
//
// It ends with the command's exit code; with 1 when a server did not start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/test/services"
)

func main() {
	only := flag.String("only", "", "names of servers with commas between them; empty: all")
	test := flag.Bool("test", false, "run the tests of real servers, of all packages or of those given")
	env := flag.String("env", "", "also write the addresses into this file, for a shell to read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, names(*only), *env, func(env []string) int {
		switch {
		case *test:
			return tests(ctx, env, flag.Args())
		case flag.NArg() > 0:
			return child(ctx, env, flag.Args())
		}
		<-ctx.Done()
		return 0
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	stop()
	os.Exit(code)
}

func names(only string) []string {
	if only == "" {
		return services.Names()
	}
	return strings.Split(only, ",")
}

// run has the servers up while do runs, and returns what it returns.
func run(ctx context.Context, names []string, file string, do func(env []string) int) (int, error) {
	begin := time.Now()
	if err := services.Install(ctx, names, func(s string) { fmt.Println("installing:", s) }); err != nil {
		return 1, err
	}
	if took := time.Since(begin); took > time.Second {
		fmt.Printf("installed in %.0f s\n", took.Seconds())
	}
	servers, err := start(ctx, names)
	var env []string
	for _, s := range servers {
		env = append(env, services.Variable(s.Name)+"="+s.Addr)
	}
	slices.Sort(env)
	if err == nil && file != "" {
		err = os.WriteFile(file, []byte(quoted(env)), 0o644)
	}
	code := 1
	if err == nil {
		fmt.Print(quoted(env))
		code = do(env)
	}
	for _, s := range servers {
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		code = max(code, 1)
	}
	return code, err
}

// quoted writes variables so that a shell reads them as they are.
func quoted(env []string) string {
	var b strings.Builder
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&b, "%s='%s'\n", name, value)
	}
	return b.String()
}

// start starts all at once, and prints a line for each that answers.
func start(ctx context.Context, names []string) ([]*services.Server, error) {
	type result struct {
		*services.Server
		err error
	}
	begin, results := time.Now(), make(chan result)
	for _, name := range names {
		go func() {
			s, err := services.Open(name)
			results <- result{s, err}
		}()
	}
	var servers []*services.Server
	var all error
	for range names {
		r := <-results
		if r.err != nil {
			all = errors.Join(all, r.err)
			continue
		}
		servers = append(servers, r.Server)
		fmt.Printf("%-10s %-10s %5.1f s  %s\n", r.Name, r.Version, time.Since(begin).Seconds(), r.Addr)
	}
	return servers, errors.Join(all, ctx.Err())
}

// child runs a command with the addresses in its environment. Ctrl-C reaches
// it through the terminal, SIGTERM from here; the servers stay until it ended.
func child(ctx context.Context, env, command []string) int {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	err := cmd.Run()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
