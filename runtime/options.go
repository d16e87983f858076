package runtime

import (
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// Options are everything an instance is started with.
type Options struct {
	// AppID and Namespace identify the app.
	AppID, Namespace string
	// DataDir is where embedded components keep files; default "./.penstock".
	DataDir string
	// Resources are folders, Configs files of Configuration documents.
	Resources, Configs []string
	// Strict makes warnings about the configuration errors.
	Strict bool
	// Env looks up environment variables.
	Env func(string) (string, bool)
	// Components finds those that documents name.
	Components component.Finder

	// Listeners of the HTTP API, already open; Public serves health and
	// metadata only and may be empty.
	Listeners, Public []net.Listener
	// Profile serves the profiles of the process and may be empty.
	Profile []net.Listener
	// Console serves the web page for the people who run this, and may be empty;
	// ConsoleToken lets them in.
	Console      []net.Listener
	ConsoleToken string
	// ConsoleWriteState lets the page set and delete state of the app.
	ConsoleWriteState bool
	// GRPC are the listeners of the gRPC API, already open; may be empty.
	GRPC []net.Listener
	// Internal are the listeners for other sidecars, already open; may be empty.
	Internal []net.Listener
	// Scrapes are the listeners for metrics, already open. With none, nothing is
	// counted.
	Scrapes []net.Listener
	// CountAnyway has metrics even when spec.metric of the Configuration does not.
	CountAnyway bool
	// Identity is how others know who this is; the zero value is plain text.
	Identity IdentityOptions
	// APIToken is what callers must send; empty: nothing.
	APIToken string
	// MaxBody bounds request bodies, in bytes; default 4 MiB.
	MaxBody int64
	// ReadBuffer bounds request headers, in bytes; default 4 KiB.
	ReadBuffer int
	// AllowedOrigins for CORS.
	AllowedOrigins []string
	// AllowedHosts that requests may name beside loopback.
	AllowedHosts []string
	// LogAPI logs every API call, or none; nil: as the Configuration says.
	LogAPI *bool

	// App is how to reach the user's program.
	App AppOptions

	// Reload asks to read the configuration again, whether or not a file
	// changed; nil: never.
	Reload <-chan struct{}

	// Grace bounds the end of what is under way; default 5 s.
	Grace time.Duration
	// BlockShutdown delays a stop.
	BlockShutdown time.Duration

	// Stdout is where spans go that a Configuration wants there; nil: nowhere.
	Stdout io.Writer

	// Version is that of the binary.
	Version string
	Logger  *slog.Logger

	uuid string // of the template {uuid}, the same for every reading
}

// AppOptions are how to reach the user's program.
type AppOptions struct {
	// Port is zero when there is no app to call.
	Port int
	// Address is the host; default 127.0.0.1.
	Address string
	// Protocol is http, https, h2c, grpc or grpcs.
	Protocol string
	// Token is sent with every call.
	Token string
	// MaxConcurrency bounds calls under way; zero or less: no bound.
	MaxConcurrency int
	// Disable lists start-up questions not to ask: config, subscribe.
	Disable []string
	// ProbeTimeout bounds the question whether the app takes a binding's
	// events; default 3 s.
	ProbeTimeout time.Duration

	// Health probing.
	HealthCheck     bool
	HealthPath      string
	HealthInterval  time.Duration
	HealthTimeout   time.Duration
	HealthThreshold int
}

func (o *Options) setDefaults() {
	if o.DataDir == "" {
		o.DataDir = ".penstock"
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	if o.ReadBuffer <= 0 {
		o.ReadBuffer = 4 << 10
	}
	if o.App.Address == "" {
		o.App.Address = "127.0.0.1"
	}
	o.App.HealthInterval = orElse(o.App.HealthInterval, 5*time.Second)
	o.App.HealthTimeout = orElse(o.App.HealthTimeout, 500*time.Millisecond)
	o.App.HealthThreshold = orElse(o.App.HealthThreshold, 3)
	o.uuid = cloudevents.NewID()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Env == nil {
		o.Env = func(string) (string, bool) { return "", false }
	}
}

func orElse[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}

// load options for the configuration reader.
func (o *Options) reader() config.Options {
	return config.Options{AppID: o.AppID, Namespace: o.Namespace, Resources: o.Resources, Configs: o.Configs, Env: o.Env, UUID: o.uuid}
}
