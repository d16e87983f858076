package main

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// serveFlags are those of `penstock serve`, which existing tooling starts with
// the flags of daprd.
type serveFlags struct {
	AppID             string `name:"app-id" env:"APP_ID" help:"Identity of the app: discovery, state prefix, default consumer group."`
	AppPort           int    `name:"app-port" help:"Port the app listens on; none: only outbound calls are served."`
	AppProtocol       string `name:"app-protocol" default:"http" help:"http, https, h2c, grpc or grpcs."`
	AppSSL            bool   `name:"app-ssl" help:"Old way to say --app-protocol https or grpcs."`
	AppChannelAddress string `name:"app-channel-address" default:"127.0.0.1" help:"Host the app listens on."`
	AppMaxConcurrency int    `name:"app-max-concurrency" default:"-1" help:"Limit of calls to the app under way at once; -1: none."`

	EnableAppHealthCheck     bool          `name:"enable-app-health-check" help:"Probe the app and hold events back while it is unhealthy."`
	AppHealthCheckPath       string        `name:"app-health-check-path" default:"/healthz" help:"Path of the probe."`
	AppHealthProbeInterval   int           `name:"app-health-probe-interval" default:"5" help:"Seconds between probes."`
	AppHealthProbeTimeout    int           `name:"app-health-probe-timeout" default:"500" help:"Milliseconds a probe may take."`
	AppHealthThreshold       int           `name:"app-health-threshold" default:"3" help:"Failures in a row that make the app unhealthy."`
	AppBindingOptionsTimeout time.Duration `name:"app-binding-options-timeout" default:"3s" help:"Limit of the question whether the app takes a binding's events."`

	HTTPPort            int    `name:"dapr-http-port" default:"3500" help:"Port of the HTTP API; 0 takes any free port."`
	GRPCPort            int    `name:"dapr-grpc-port" default:"50001" help:"Port of the gRPC API; 0 takes any free port."`
	InternalPort        int    `name:"dapr-internal-grpc-port" help:"Port for other sidecars that call this app; 0 takes any free port."`
	InternalAddress     string `name:"dapr-internal-grpc-listen-address" help:"Address for other sidecars; default: those of the API. Give one that other machines reach when they are to call this app."`
	ListenAddresses     string `name:"dapr-listen-addresses" help:"Addresses of the API, comma separated; loopback when empty."`
	PublicPort          int    `name:"dapr-public-port" help:"Port that serves health and metadata only; none when 0."`
	PublicListenAddress string `name:"dapr-public-listen-address" help:"Address of the public port; loopback when empty."`

	EnableMTLS              *bool  `name:"enable-mtls" help:"Mutual TLS between instances; when it is not given, it is on with --identity-dir and --identity-socket, or as spec.mtls of the Configuration says."`
	IdentityDir             string `name:"identity-dir" help:"Folder of this instance's identity: tls.crt, tls.key, ca.crt; see penstock ca."`
	IdentitySocket          string `name:"identity-socket" help:"Address of a SPIFFE Workload API, unix:///PATH; with --enable-mtls alone it is SPIFFE_ENDPOINT_SOCKET."`
	SentryAddress           string `name:"sentry-address" help:"Dapr's Sentry, which issues the identity: HOST:PORT."`
	TrustAnchorsFile        string `name:"trust-anchors-file" help:"File of the authorities of Sentry, instead of the variable DAPR_TRUST_ANCHORS."`
	ControlPlaneTrustDomain string `name:"control-plane-trust-domain" env:"DAPR_CONTROLPLANE_TRUST_DOMAIN" help:"Trust domain of Sentry itself; localhost when nothing says it."`
	ControlPlaneNamespace   string `name:"control-plane-namespace" env:"DAPR_CONTROLPLANE_NAMESPACE" help:"Namespace of Sentry itself; default when empty."`

	EnableProfiling bool `name:"enable-profiling" help:"Serve Go's profiles on a port of loopback."`
	ProfilePort     int  `name:"profile-port" default:"7777" help:"Port of the profiles."`

	ResourcesPath []string `name:"resources-path" aliases:"components-path" help:"Folder of YAML resources; may be repeated."`
	Config        []string `name:"config" help:"File of a Configuration document; may be repeated, later ones win."`
	Strict        bool     `name:"strict" help:"Make warnings about the configuration errors."`
	DataDir       string   `name:"data-dir" env:"PENSTOCK_DATA_DIR" default:".penstock" help:"Folder of embedded storage."`

	MaxBodySize        string `name:"max-body-size" default:"4Mi" help:"Largest request body."`
	MaxRequestSize     int    `name:"dapr-http-max-request-size" help:"Old form of --max-body-size, in MB."`
	ReadBufferSize     string `name:"read-buffer-size" default:"4Ki" help:"Largest request header."`
	HTTPReadBufferSize int    `name:"dapr-http-read-buffer-size" help:"Old form of --read-buffer-size, in KB."`
	UnixDomainSocket   string `name:"unix-domain-socket" help:"Folder for Unix sockets instead of the ports: dapr-<app id>-http.socket and -grpc.socket."`
	AllowedHosts       string `name:"allowed-hosts" help:"Host names that requests may come in by, comma separated, beside loopback and the address listened on; * allows all."`
	AllowedOrigins     string `name:"allowed-origins" default:"*" help:"Origins for CORS, comma separated; * sends no CORS headers."`

	GracefulShutdownSeconds int           `name:"dapr-graceful-shutdown-seconds" default:"5" help:"Seconds that events under way get to finish."`
	BlockShutdownDuration   time.Duration `name:"dapr-block-shutdown-duration" help:"Keep serving this long after SIGTERM, or until the app is unhealthy."`
	DisableInitEndpoints    string        `name:"disable-init-endpoints" help:"Questions not to ask the app, comma separated: config, subscribe."`
	EnableAPILogging        *bool         `name:"enable-api-logging" help:"Log every API call; when it is not given, spec.logging.apiLogging of the Configuration decides."`

	EnableMetrics        *bool  `name:"enable-metrics" negatable:"" help:"Count what happens, and serve it to Prometheus; when it is not given, spec.metric.enabled of the Configuration decides, and that is true unless it says otherwise."`
	MetricsPort          *int   `name:"metrics-port" help:"Port of the metrics, 0 for any; when it is not given, 9090 if nobody else has that."`
	MetricsListenAddress string `name:"metrics-listen-address" help:"Address of the metrics; loopback when empty."`

	EnableConsole        *bool  `name:"enable-console" negatable:"" help:"Serve the web page for the people who run this; when it is not given, run does, and serve with --console-port."`
	ConsolePort          *int   `name:"console-port" help:"Port of the console, 0 for any; when it is not given, 3580, or any if somebody else has that."`
	ConsoleListenAddress string `name:"console-listen-address" help:"Address of the console; loopback when empty."`
	ConsoleWriteState    bool   `name:"console-write-state" help:"Let the console set and delete state of the app, not only show it."`

	LogLevel  string `name:"log-level" default:"info" help:"debug, info, warn or error; penstock loglevel changes it later, of each part."`
	LogAsJSON bool   `name:"log-as-json" help:"Log JSON lines."`

	Unused unusedFlags `embed:""`

	console consoleAt `kong:"-"` // where it is, when it is open
}

// unusedFlags are accepted because tooling gives them; this version has no use
// for them yet and says so once at debug level.
type unusedFlags struct {
	Mode                     string   `name:"mode" hidden:"" default:"standalone" enum:"standalone,kubernetes"`
	ControlPlaneAddress      string   `name:"control-plane-address" hidden:""`
	SentryJWTAudiences       []string `name:"sentry-request-jwt-audiences" hidden:""`
	PlacementHostAddress     string   `name:"placement-host-address" hidden:""`
	ActorsService            string   `name:"actors-service" hidden:""`
	RemindersService         string   `name:"reminders-service" hidden:""`
	ActorsDisseminateTimeout string   `name:"actors-disseminate-timeout" hidden:""`
	SchedulerHostAddress     string   `name:"scheduler-host-address" hidden:""`
	SchedulerJobStreams      string   `name:"scheduler-job-streams" hidden:""`
	HotReloadInterval        string   `name:"hot-reload-reconcile-interval" hidden:""`
	DisableK8sSecretStore    bool     `name:"disable-builtin-k8s-secret-store" hidden:""`
}

// given names the unused flags that were set, for the log.
func (u unusedFlags) given() []string {
	set := map[string]bool{
		"mode":                  u.Mode != "standalone",
		"control-plane-address": u.ControlPlaneAddress != "", "sentry-request-jwt-audiences": len(u.SentryJWTAudiences) > 0,
		"placement-host-address": u.PlacementHostAddress != "", "actors-service": u.ActorsService != "",
		"reminders-service": u.RemindersService != "", "actors-disseminate-timeout": u.ActorsDisseminateTimeout != "",
		"scheduler-host-address": u.SchedulerHostAddress != "", "scheduler-job-streams": u.SchedulerJobStreams != "",
		"hot-reload-reconcile-interval": u.HotReloadInterval != "", "disable-builtin-k8s-secret-store": u.DisableK8sSecretStore,
	}
	maps.DeleteFunc(set, func(_ string, on bool) bool { return !on })
	return slices.Sorted(maps.Keys(set))
}

// Validate refuses words that kong cannot check, because their case does not
// matter.
func (f *serveFlags) Validate() error {
	if _, err := telemetry.ParseLevel(f.LogLevel); err != nil {
		return fault.New(fault.Invalid, "--log-level must be one of debug, info, warn, error but got %q", f.LogLevel)
	}
	return nil
}

func (f *serveFlags) level() slog.Level {
	l, err := telemetry.ParseLevel(f.LogLevel)
	if err != nil {
		return slog.LevelInfo
	}
	return l
}

// list splits a comma list and leaves out what is empty.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
