package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/runtime"
)

type checkCommand struct {
	Dirs      []string `arg:"" name:"dir" help:"Folders of YAML resources."`
	AppID     string   `name:"app-id" env:"APP_ID" default:"app" help:"App id for templates and scopes."`
	Namespace string   `name:"namespace" env:"NAMESPACE" help:"Namespace for templates and scopes."`
	Config    []string `name:"config" help:"Files of Configuration documents."`
}

// Run prints every problem of the configuration, in the order of the files; the
// exit code is 1 when there is one.
func (c *checkCommand) Run(std *stdio) error {
	sound, err := runtime.Report(std.out, all.Finder(os.LookupEnv), config.Options{
		AppID: c.AppID, Namespace: c.Namespace, Resources: c.Dirs, Configs: c.Config, Env: os.LookupEnv,
	})
	if err == nil && !sound {
		return exitCode(1)
	}
	return fault.Wrap(err, "write report")
}

type describeCommand struct {
	Name     string `arg:"" optional:"" help:"Component, as in bindings.cron, bindings.cron/v1 or cron."`
	Markdown bool   `name:"markdown" help:"Print the reference page."`
}

// Run prints one component, or the list of the build, one kind.name/version a
// line.
func (c *describeCommand) Run(std *stdio) error {
	components := all.Components()
	if c.Name == "" {
		for _, n := range components.Names() {
			fmt.Fprintln(std.out, n)
		}
		return nil
	}
	typ, version, _ := strings.Cut(c.Name, "/")
	typ, err := full(components, typ)
	if err != nil {
		return err
	}
	def, err := all.Finder(os.LookupEnv).Find(typ, version)
	if err != nil {
		return fault.Wrap(err, "describe")
	}
	text := component.Describe(def)
	if c.Markdown {
		text = component.Markdown(def)
	}
	_, err = fmt.Fprint(std.out, text)
	return err
}

// full puts the kind before a bare name such as cron.
func full(list component.List, name string) (string, error) {
	if strings.Contains(name, ".") {
		return name, nil
	}
	var types, names []string
	for _, d := range list {
		_, bare, _ := strings.Cut(d.Type, ".")
		names = append(names, bare)
		if strings.EqualFold(bare, name) {
			types = append(types, d.Type)
		}
	}
	switch len(types) {
	case 0:
		hint := "run \"penstock describe\" for all of them"
		if near := config.Nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return "", fault.New(fault.NotFound, "describe: no component is called %q; %s", name, hint)
	case 1:
		return types[0], nil
	}
	return "", fault.New(fault.Invalid, "describe: %q may be %s; write one of them", name, strings.Join(types, " or "))
}

type schemaCommand struct{}

// Run prints the JSON schema of every document that Penstock reads.
func (schemaCommand) Run(std *stdio) error {
	schema, err := component.Schema(all.Components())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s\n", schema)
	return err
}
