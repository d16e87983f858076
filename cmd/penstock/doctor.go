package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/instances"
	"github.com/penstock-io/penstock/runtime"
)

// doctorCommand has the flags of serve that say what would run.
type doctorCommand struct {
	AppID         string        `name:"app-id" short:"a" env:"APP_ID" default:"app" help:"The app: of what runs, or of what is to run."`
	AppPort       int           `name:"app-port" help:"Port of the app; that of the running instance when it is not given."`
	AppHost       string        `name:"app-channel-address" default:"127.0.0.1" help:"Host the app listens on."`
	AppProtocol   string        `name:"app-protocol" help:"http, https, h2c, grpc or grpcs; that of the running instance, or else http, when it is not given."`
	HTTPPort      int           `name:"dapr-http-port" env:"DAPR_HTTP_PORT" default:"3500" help:"Port of the HTTP API."`
	GRPCPort      int           `name:"dapr-grpc-port" default:"50001" help:"Port of the gRPC API."`
	ResourcesPath []string      `name:"resources-path" aliases:"components-path" help:"Folder of YAML resources; may be repeated."`
	Config        []string      `name:"config" help:"File of a Configuration document; may be repeated."`
	DataDir       string        `name:"data-dir" env:"PENSTOCK_DATA_DIR" default:".penstock" help:"Folder of embedded storage."`
	IdentityDir   string        `name:"identity-dir" help:"Folder of this instance's identity."`
	Timeout       time.Duration `name:"timeout" default:"10s" help:"How long one check may take."`
	Out           string        `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// How a check ended.
const (
	sound   = "ok"
	warning = "warn"
	broken  = "broken"
	skipped = "skipped"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn, broken or skipped
	Text   string `json:"text"`
	Do     string `json:"do,omitempty"` // what to do
}

// patient is what is looked at, and what was found.
type patient struct {
	*doctorCommand
	running  *instances.Instance // of the app; nil: nothing runs
	others   []instances.Instance
	set      *config.Set // nil: it could not be read
	findings []finding
}

func (p *patient) add(check, status, do, text string, args ...any) {
	p.findings = append(p.findings, finding{check, status, fmt.Sprintf(text, args...), do})
}

// Run looks at everything that keeps Penstock from working. The exit code is 1 when
// something is broken.
func (c *doctorCommand) Run(ctx context.Context, std *stdio) error {
	p := &patient{doctorCommand: c}
	p.instance(ctx)
	p.configuration()
	p.ports(ctx)
	p.app(ctx)
	if err := p.components(ctx); err != nil {
		return err
	}
	p.dataDir()
	p.secretFiles()
	p.clock(ctx)
	if err := p.print(std); err != nil {
		return err
	}
	if slices.ContainsFunc(p.findings, func(f finding) bool { return f.Status == broken }) {
		return exitCode(1)
	}
	return nil
}

func (p *patient) print(std *stdio) error {
	if p.Out == "json" {
		return printJSON(std.out, p.findings)
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	for _, f := range p.findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Status, dash(f.Check), dash(f.Text))
		if f.Do != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", dash(f.Do))
		}
	}
	return w.Flush()
}

// configuration checks the documents as penstock check does.
func (p *patient) configuration() {
	if len(p.ResourcesPath)+len(p.Config) == 0 {
		p.add("configuration", skipped, "give --resources-path and --config", "no folder of resources was named")
		return
	}
	set, problems := runtime.Load(all.Finder(os.LookupEnv), config.Options{
		AppID: p.AppID, Namespace: os.Getenv("NAMESPACE"), Resources: p.ResourcesPath, Configs: p.Config, Env: os.LookupEnv,
	})
	p.set = set
	for _, q := range problems {
		status := broken
		if q.Lenient {
			status = warning
		}
		text := q.Text
		if at := q.Place.String(); at != "" {
			text = at + ": " + text
		}
		p.add("configuration", status, q.Hint, "%s", text)
	}
	if len(problems) == 0 {
		p.add("configuration", sound, "", "%s, %s, %s", runtime.Count(len(set.Components), "component"),
			runtime.Count(len(set.Subscriptions), "subscription"), runtime.Count(len(set.Pipelines), "pipeline"))
	}
}

// components opens each, or asks the instance that has them open.
func (p *patient) components(ctx context.Context) error {
	switch {
	case p.running != nil && p.running.HTTPPort > 0:
		p.openComponents(ctx)
		return nil
	case p.set == nil || slices.ContainsFunc(p.findings, func(f finding) bool { return f.Check == "configuration" && f.Status == broken }):
		p.add("components", skipped, "mend the configuration first", "not opened")
		return nil
	case len(p.set.Components) == 0:
		p.add("components", skipped, "", "there are none")
		return nil
	}
	scratch, err := os.MkdirTemp("", "penstock-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	o := runtime.Options{
		AppID: p.AppID, Namespace: os.Getenv("NAMESPACE"), DataDir: filepath.Join(scratch, "data"), Components: all.Finder(os.LookupEnv), Env: os.LookupEnv,
	}
	openings, err := runtime.Probe(ctx, o, p.set, p.Timeout)
	if err != nil {
		p.add("components", broken, "", "%v", err)
		return nil
	}
	for _, is := range openings {
		p.opening(is)
	}
	return nil
}

func (p *patient) opening(o runtime.Opening) {
	check := "component " + o.Component.Name
	switch {
	case o.Err == nil:
		p.add(check, sound, "", "%s opened in %s", o.Component.Type, o.Took.Round(time.Millisecond))
	case o.Component.IgnoreErrors:
		p.add(check, warning, remedy(o), "%v; ignoreErrors lets the rest go on without it", o.Err)
	default:
		p.add(check, broken, remedy(o), "%v", o.Err)
	}
}
