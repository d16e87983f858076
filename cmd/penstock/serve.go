package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
	"github.com/penstock-io/penstock/runtime"
)

type serveCommand struct {
	serveFlags `embed:""`
	Wait       bool `name:"wait" help:"Wait until a Penstock on the HTTP port is ready, at most a minute, then exit."`
	Version    bool `name:"version" help:"Print the version and exit."`
	BuildInfo  bool `name:"build-info" help:"Print version and build and exit."`
}

// Run serves until a signal, a shutdown through the API, or a failure.
func (c *serveCommand) Run(ctx context.Context, std *stdio) error {
	switch {
	case c.Version, c.BuildInfo:
		return (&versionCommand{Build: c.BuildInfo}).Run(std)
	case c.Wait:
		return waitReady(ctx, c.HTTPPort)
	case c.AppID == "":
		return fault.New(fault.Invalid, "start: --app-id is missing; give it, or set APP_ID")
	}
	log := newLogger(std.out, &c.serveFlags)
	reload, stop := hangups(ctx)
	defer stop()
	rt, err := prepare(&c.serveFlags, log, reload)
	if err != nil {
		return err
	}
	defer announce(c.instance(), log)()
	return serve(ctx, rt)
}

// prepare makes an instance with the given flags, whose ports are open then. Its
// configuration is read again whenever reload says so, besides when a file
// changes.
func prepare(f *serveFlags, log *slog.Logger, reload <-chan struct{}) (*runtime.Runtime, error) {
	o, err := f.options(log)
	if err != nil {
		return nil, err
	}
	if err := f.listen(&o); err != nil {
		return nil, err
	}
	f.HTTPPort, f.GRPCPort = bound(f.HTTPPort, o.Listeners), bound(f.GRPCPort, o.GRPC)
	for _, l := range o.Listeners {
		log.Info("HTTP server listening", "address", l.Addr().String())
	}
	if f.EnableProfiling {
		l, err := listenTCP("127.0.0.1", f.ProfilePort, "--profile-port")
		if err != nil {
			return nil, err
		}
		o.Profile = append(o.Profile, l)
		log.Info("HTTP profiling server listening", "address", l.Addr().String())
	}
	for _, l := range o.GRPC {
		log.Info("gRPC server listening", "address", l.Addr().String())
	}
	for _, l := range o.Internal {
		log.Info("Internal gRPC server listening", "address", l.Addr().String())
	}
	if err := f.listenMetrics(&o, log); err != nil {
		return nil, err
	}
	if err := f.listenConsole(&o, log); err != nil {
		return nil, err
	}
	if names := f.Unused.given(); len(names) > 0 {
		log.Debug("Flags accepted and not used by this version", "flags", strings.Join(names, " "))
	}
	o.Reload = reload
	return runtime.New(o)
}

// announce lets others find this process until withdraw is called. It does
// without where nothing can be written.
func announce(about instances.Instance, log *slog.Logger) (withdraw func()) {
	remove, err := instances.Open().Add(about)
	if err != nil {
		log.Debug("Not in the list of instances", "error", err)
		return func() {}
	}
	return remove
}

func serve(ctx context.Context, rt *runtime.Runtime) error {
	defer tendMemory(ctx)()
	return rt.Run(ctx)
}

// componentsClose is how long components may take to close after the drain.
const componentsClose = 5 * time.Second

// instance is what others find out about a process with these flags.
func (f *serveFlags) instance() instances.Instance {
	i := instances.Instance{
		AppID: f.AppID, HTTPPort: f.HTTPPort, GRPCPort: f.GRPCPort, AppPort: f.AppPort,
		Grace:   f.BlockShutdownDuration + f.grace() + componentsClose,
		Console: f.console.address, ConsoleToken: f.console.token,
	}
	if full, err := filepath.Abs(f.DataDir); err == nil {
		i.DataDir = full
	}
	if f.UnixDomainSocket != "" {
		i.HTTPPort, i.GRPCPort = 0, 0
	}
	return i
}

// hangups turns each SIGHUP into one request to reload; those that come while
// one is waiting are one with it.
func hangups(ctx context.Context) (reload <-chan struct{}, stop func()) {
	signals, asked := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}()
	return asked, func() { signal.Stop(signals); cancel(); <-done }
}

// options turns flags into those of the runtime.
func (f *serveFlags) options(log *slog.Logger) (runtime.Options, error) {
	o := runtime.Options{
		AppID: f.AppID, Namespace: os.Getenv("NAMESPACE"), DataDir: f.DataDir,
		Resources: f.ResourcesPath, Configs: f.Config, Strict: f.Strict, Env: os.LookupEnv,
		Components: all.Finder(os.LookupEnv), APIToken: os.Getenv("DAPR_API_TOKEN"), LogAPI: f.EnableAPILogging,
		Grace: time.Duration(f.GracefulShutdownSeconds) * time.Second, BlockShutdown: f.BlockShutdownDuration,
		Version: version(), Logger: log, Stdout: os.Stdout,
		App: runtime.AppOptions{
			Port: f.AppPort, Address: f.AppChannelAddress, Protocol: f.protocol(), Token: os.Getenv("APP_API_TOKEN"),
			MaxConcurrency: f.AppMaxConcurrency, Disable: list(f.DisableInitEndpoints), ProbeTimeout: f.AppBindingOptionsTimeout,
			HealthCheck: f.EnableAppHealthCheck, HealthPath: f.AppHealthCheckPath,
			HealthInterval:  time.Duration(f.AppHealthProbeInterval) * time.Second,
			HealthTimeout:   time.Duration(f.AppHealthProbeTimeout) * time.Millisecond,
			HealthThreshold: f.AppHealthThreshold,
		},
	}
	o.Identity = f.identity()
	o.AllowedHosts = list(f.AllowedHosts)
	if f.AllowedOrigins != "*" {
		o.AllowedOrigins = list(f.AllowedOrigins)
	}
	switch o.App.Protocol {
	case "http", "https", "h2c", "grpc", "grpcs":
	default:
		return o, fault.New(fault.Invalid, "read --app-protocol %q: use http, https, h2c, grpc or grpcs", f.AppProtocol)
	}
	return o, f.sizes(&o)
}

// identity is how others know who this is.
func (f *serveFlags) identity() runtime.IdentityOptions {
	return runtime.IdentityOptions{
		MTLS: f.EnableMTLS, Dir: f.IdentityDir, Socket: f.IdentitySocket, SentryAddress: f.SentryAddress, AnchorsFile: f.TrustAnchorsFile,
		ControlPlaneTrustDomain: f.ControlPlaneTrustDomain, ControlPlaneNamespace: f.ControlPlaneNamespace,
		Kubernetes: f.Unused.Mode == "kubernetes",
	}
}

// protocol is that of the app, TLS taken in.
func (f *serveFlags) protocol() string {
	p := strings.ToLower(f.AppProtocol)
	if f.AppSSL && (p == "http" || p == "grpc") {
		p += "s"
	}
	return p
}

func (f *serveFlags) sizes(o *runtime.Options) error {
	var err error
	if o.MaxBody, err = config.ParseSize(f.MaxBodySize); err != nil {
		return fault.Wrap(err, "read --max-body-size")
	}
	if f.MaxRequestSize > 0 {
		o.MaxBody = int64(f.MaxRequestSize) << 20
	}
	buffer, err := config.ParseSize(f.ReadBufferSize)
	if err != nil {
		return fault.Wrap(err, "read --read-buffer-size")
	}
	if f.HTTPReadBufferSize > 0 {
		buffer = int64(f.HTTPReadBufferSize) << 10
	}
	o.ReadBuffer = int(buffer)
	return nil
}

// listen opens the ports of the API. A port that is taken is said before
// anything else starts.
func (f *serveFlags) listen(o *runtime.Options) error {
	if err := f.listenInternal(o); err != nil {
		return err
	}
	if f.UnixDomainSocket != "" {
		socket := filepath.Join(f.UnixDomainSocket, "dapr-"+f.AppID)
		l, err := listenUnix(socket + "-http.socket")
		if err != nil {
			return err
		}
		o.Listeners = []net.Listener{l}
		l, err = listenUnix(socket + "-grpc.socket")
		o.GRPC = []net.Listener{l}
		return err
	}
	hosts := list(f.ListenAddresses)
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	var err error
	if o.Listeners, err = listenAll(hosts, f.HTTPPort, "--dapr-http-port"); err != nil {
		return err
	}
	if o.GRPC, err = listenAll(hosts, f.GRPCPort, "--dapr-grpc-port"); err != nil {
		return err
	}
	if f.PublicPort > 0 {
		o.Public, err = listenAll([]string{cmp.Or(f.PublicListenAddress, "127.0.0.1")}, f.PublicPort, "--dapr-public-port")
	}
	return err
}

// listenInternal opens the port for other sidecars, on one address: it is what
// they are told.
func (f *serveFlags) listenInternal(o *runtime.Options) error {
	host := f.InternalAddress
	if host == "" {
		host = append(list(f.ListenAddresses), "127.0.0.1")[0]
	}
	l, err := listenTCP(host, f.InternalPort, "--dapr-internal-grpc-port")
	if err == nil {
		o.Internal = []net.Listener{l}
	}
	return err
}

func listenAll(hosts []string, port int, flag string) ([]net.Listener, error) {
	var out []net.Listener
	for _, host := range hosts {
		l, err := listenTCP(host, port, flag)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// defaultMetricsPort is Dapr's.
const defaultMetricsPort = 9090

// listenMetrics opens the port of the metrics. Without a flag, somebody else may
// have it: then nothing is counted, for several instances on one machine are usual.
func (f *serveFlags) listenMetrics(o *runtime.Options, log *slog.Logger) error {
	if f.EnableMetrics != nil && !*f.EnableMetrics {
		return nil
	}
	o.CountAnyway = f.EnableMetrics != nil
	port := defaultMetricsPort
	if f.MetricsPort != nil {
		port = *f.MetricsPort
	}
	l, err := listenTCP(cmp.Or(f.MetricsListenAddress, "127.0.0.1"), port, "--metrics-port")
	if err != nil && f.MetricsPort == nil && errors.Is(err, syscall.EADDRINUSE) {
		log.Info("No metrics: port 9090 is in use; give another --metrics-port to have them")
		return nil
	}
	if err != nil {
		return err
	}
	o.Scrapes = []net.Listener{l}
	log.Info("Metrics server listening", "address", l.Addr().String())
	return nil
}

// bound is the port that 0 has become.
func bound(port int, l []net.Listener) int {
	if a, ok := l[0].Addr().(*net.TCPAddr); ok && port == 0 {
		return a.Port
	}
	return port
}

func listenTCP(host string, port int, flag string) (net.Listener, error) {
	address := net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	if err != nil {
		hint := "stop what uses the port or give another " + flag
		switch {
		case port < 0 || port > 65535:
			return nil, fault.New(fault.Invalid, "read %s %d: want 0 to 65535", flag, port)
		case !errors.Is(err, syscall.EADDRINUSE):
			hint = "see " + flag + " and --dapr-listen-addresses"
		}
		return nil, fault.New(fault.Unavailable, "listen on %s: %w; %s", address, err, hint)
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	// A socket that a killed process left behind would keep us from listening;
	// one that answers belongs to somebody, and what is no socket is not ours.
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fault.New(fault.Conflict, "listen on %s: another process serves it", path)
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode()&os.ModeSocket == 0:
		return nil, fault.New(fault.Conflict, "listen on %s: there is something that is no socket", path)
	case err == nil:
		os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.Wrap(err, "listen on %s", path)
	}
	// The umask says whether the group gets in; others never do.
	info, err := os.Stat(path)
	if err == nil {
		err = os.Chmod(path, info.Mode().Perm()&0o660)
	}
	if err != nil {
		l.Close()
		return nil, fault.Wrap(err, "listen on %s", path)
	}
	return l, nil
}

// maxWait is how long --wait waits.
const maxWait = time.Minute

// waitReady polls the outbound health of a running instance.
func waitReady(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	url := fmt.Sprintf("http://127.0.0.1:%d/v1.0/healthz/outbound", port)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "wait for penstock on port %d: it is not ready", port)
		case <-tick.C:
		}
	}
}

// versionCommand prints what this binary is.
type versionCommand struct {
	Build bool   `name:"build" help:"Add toolchain, commit and platform."`
	Out   string `name:"output" short:"o" default:"text" enum:"text,json" help:"text or json."`
}

// Run prints the version.
func (c *versionCommand) Run(std *stdio) error {
	info := buildInfo()
	if c.Out == "json" {
		return json.NewEncoder(std.out).Encode(info)
	}
	if c.Build {
		_, err := fmt.Fprintf(std.out, "Version: %s\nGo: %s\nCommit: %s\nPlatform: %s\n", info.Version, info.Go, info.Commit, info.Platform)
		return err
	}
	_, err := fmt.Fprintln(std.out, info.Version)
	return err
}
