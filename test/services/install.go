package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Install installs what the named servers need and what is not there: Debian's
// packages with apt-get, as root, and what Debian does not have into the cache
// folder. It tells say what it does before it begins. Where it cannot install,
// its error lists all that is missing and how to get it.
func Install(ctx context.Context, names []string, say func(string)) error {
	none := map[string]tool{}
	for _, r := range recipes() {
		if slices.Contains(names, r.name) {
			for _, t := range r.missing() {
				none[t.name] = t
			}
		}
	}
	if len(none) == 0 {
		return nil
	}
	unlock, err := alone()
	if err != nil {
		return err
	}
	defer unlock()
	if err := debian(ctx, wanted(none), say); err != nil {
		return err
	}
	return registries(ctx, none, say)
}

// wanted adds to the missing what is needed to make them.
func wanted(none map[string]tool) []tool {
	all := make([]tool, 0, len(none)+3)
	for _, t := range none {
		if !t.cached {
			all = append(all, t)
		}
	}
	makers := map[string][]tool{
		python().name:         {program("python3", "python3"), venv()},
		kafkaJars().name:      {program("mvn", "maven")},
		cassandraJars().name:  {program("mvn", "maven")},
		zipkinJars().name:     {program("mvn", "maven")},
		azuriteModules().name: {program("npm", "npm")},
	}
	for name, tools := range makers {
		if none[name].cached {
			for _, t := range tools {
				if t.found() == "" {
					all = append(all, t)
				}
			}
		}
	}
	return all
}

// venv is Python's module of that name, which is a Debian package of its own.
func venv() tool {
	return tool{name: "python3 -m venv", debian: "python3-venv", found: func() string {
		if exec.Command("python3", "-c", "import venv, ensurepip").Run() != nil {
			return ""
		}
		return "python3"
	}}
}

// debian installs the packages of the tools.
func debian(ctx context.Context, tools []tool, say func(string)) error {
	if len(tools) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return absent(tools)
	}
	packages := packages(tools)
	say("apt-get install " + strings.Join(packages, " "))
	allow, err := forbidStart()
	if err != nil {
		return err
	}
	defer allow()
	// Another apt-get may be at work: it is waited for.
	options := []string{"-qq", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"}
	if err := fetch(ctx, say, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	options = append(options, "install", "-y", "--no-install-recommends")
	if err := fetch(ctx, say, "apt-get", append(options, packages...)...); err != nil {
		return fmt.Errorf("%w\nwhat could not be had: %s", err, strings.Join(packages, " "))
	}
	return nil
}

// forbidStart keeps packages from starting the servers that they bring, by the
// script that Debian asks; it leaves one that is there alone.
func forbidStart() (allow func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	return func() { _ = os.Remove(policy) }, errors.Join(err, f.Close())
}

// registries makes what comes from package registries, all at once.
func registries(ctx context.Context, none map[string]tool, say func(string)) error {
	makers := map[string]func(context.Context, func(string)) error{
		python().name: makePython, azuriteModules().name: fetchAzurite, ferretdb().name: buildGo("ferretdb"), vault().name: buildGo("vault"),
		kafkaJars().name: fetchJars("kafka"), cassandraJars().name: fetchJars("cassandra"),
		zipkinJars().name: fetchJars("zipkin"),
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(makers))
	for name, do := range makers {
		if none[name].cached {
			say(name + " into " + cache())
			wg.Go(func() {
				if err := do(ctx, say); err != nil {
					errs <- fmt.Errorf("%w\nwhat could not be had: %s", err, name)
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

func packages(tools []tool) []string {
	var names []string
	for _, t := range tools {
		if t.debian != "" {
			names = append(names, t.debian)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// absent is the error that says what is missing and how to get it.
func absent(tools []tool) error {
	var b strings.Builder
	b.WriteString("missing on this machine:\n")
	for _, t := range tools {
		from := "made by make test-services"
		if t.debian != "" {
			from = "Debian package " + t.debian
		}
		fmt.Fprintf(&b, "  %-32s %s\n", t.name, from)
	}
	if names := packages(tools); len(names) > 0 {
		fmt.Fprintf(&b, "install them, on Debian with: apt-get install --no-install-recommends %s\n", strings.Join(names, " "))
	}
	b.WriteString("or start the servers with Docker and export their addresses: test/services/compose.yaml")
	return errors.New(b.String())
}

// alone waits until nobody else installs.
func alone() (unlock func(), err error) {
	if err := os.MkdirAll(cache(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache(), "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
