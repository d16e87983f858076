package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
	"github.com/penstock-io/penstock/runtime"
)

// remedy is what to do about a component that did not open.
func remedy(o runtime.Opening) string {
	at := o.Component.Place.String()
	if at == "" {
		at = "its document"
	}
	switch fault.KindOf(o.Err) {
	case fault.Unavailable, fault.Timeout:
		return "start the server it needs, or mend the address in " + at
	case fault.Denied:
		return "mend user, password or rights, or " + at
	case fault.NotFound:
		return "make what is missing there, or mend the name in " + at
	}
	return "mend " + at
}

// instance finds what runs, and asks whether it is ready.
func (p *patient) instance(ctx context.Context) {
	list, err := instances.Open().List()
	if err != nil && len(list) == 0 {
		p.add("instance", warning, "", "%v", err)
		return
	}
	for i := range list {
		if list[i].AppID == p.AppID && p.running == nil {
			p.running = &list[i]
			continue
		}
		p.others = append(p.others, list[i])
	}
	switch {
	case p.running == nil:
		p.add("instance", sound, "", "app %s does not run; checked is what serve would start", p.AppID)
		return
	case p.running.HTTPPort == 0:
		p.add("instance", sound, "", "app %s runs (process %d), on a socket", p.AppID, p.running.Self.PID)
		return
	}
	if err := p.ask(ctx, "/v1.0/healthz", nil); err != nil {
		p.add("instance", broken, "the checks below say what is missing; look at its log too", "app %s runs (process %d) and is not ready: %v", p.AppID, p.running.Self.PID, err)
		return
	}
	p.add("instance", sound, "", "app %s runs (process %d) and is ready", p.AppID, p.running.Self.PID)
}

// ask asks the running instance.
func (p *patient) ask(ctx context.Context, path string, out any) error {
	f := apiFlags{apiAddress: apiAddress{Port: p.running.HTTPPort}, Timeout: p.Timeout}
	return f.call(ctx, http.MethodGet, path, nil, out)
}

// openComponents are those of the running instance.
func (p *patient) openComponents(ctx context.Context) {
	var m struct{ Components []api.ComponentInfo }
	if err := p.ask(ctx, "/v1.0/metadata", &m); err != nil {
		p.add("components", broken, "set DAPR_API_TOKEN when the instance asks for a token", "ask the running instance: %v", err)
		return
	}
	for _, c := range m.Components {
		switch c.State {
		case "ready", "":
			p.add("component "+c.Name, sound, "", "%s is open in the running instance", c.Type)
		default:
			p.add("component "+c.Name, broken, "start the server it needs, or mend its document", "%s is %s since %s: %s", c.Type, c.State, c.Since, c.Error)
		}
	}
}

// ports tells which are free, and who has the others.
func (p *patient) ports(ctx context.Context) {
	if p.running != nil && p.running.HTTPPort > 0 {
		p.add("ports", sound, "", "HTTP %d and gRPC %d are those of the running instance", p.running.HTTPPort, p.running.GRPCPort)
		return
	}
	p.port(ctx, "HTTP", p.HTTPPort, "--dapr-http-port")
	p.port(ctx, "gRPC", p.GRPCPort, "--dapr-grpc-port")
}

func (p *patient) port(ctx context.Context, what string, port int, flag string) {
	check := what + " port"
	if port == 0 {
		p.add(check, sound, "", "any that is free")
		return
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		l.Close()
		p.add(check, sound, "", "%d is free", port)
		return
	}
	if errors.Is(err, fs.ErrPermission) {
		p.add(check, broken, "take a port above 1023 with "+flag, "%d may not be used: %v", port, err)
		return
	}
	for _, i := range p.others {
		if port == i.HTTPPort || port == i.GRPCPort || port == i.AppPort {
			p.add(check, broken, fmt.Sprintf("penstock stop %s, or choose another with %s", i.AppID, flag), "%d is held by app %s (process %d)", port, i.AppID, i.Self.PID)
			return
		}
	}
	p.add(check, broken, fmt.Sprintf("choose another with %s; ss -ltnp 'sport = :%d' says who has it", flag, port), "%d is held by another program", port)
}

// app tells whether the app answers.
func (p *patient) app(ctx context.Context) {
	port := p.AppPort
	if port == 0 && p.running != nil {
		port = p.running.AppPort
	}
	if port == 0 {
		p.add("app", skipped, "", "no --app-port: only outbound calls are served")
		return
	}
	address := net.JoinHostPort(p.AppHost, strconv.Itoa(port))
	d := net.Dialer{Timeout: min(p.Timeout, 3*time.Second)}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		p.add("app", broken, "start the app, or mend --app-port and --app-channel-address", "nothing answers at %s: %v", address, err)
		return
	}
	conn.Close()
	p.greetApp(ctx, address)
}

// Free room below which a data folder is warned about, and called broken.
const (
	littleRoom = 1 << 30
	noRoom     = 64 << 20
)

// dataDir tells whether the folder can be used.
func (p *patient) dataDir() {
	const check = "data folder"
	dir := p.DataDir
	if p.running != nil && p.running.DataDir != "" {
		dir = p.running.DataDir
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		p.add(check, broken, "", "%v", err)
		return
	}
	at := full // the folder, or what it would be made in
	info, err := os.Stat(at)
	for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		info, err = os.Stat(at)
	}
	switch {
	case err != nil:
		p.add(check, broken, "give another with --data-dir", "%v", err)
		return
	case !info.IsDir():
		p.add(check, broken, "give another with --data-dir", "%s is no folder", at)
		return
	}
	if err := writable(at); err != nil {
		p.add(check, broken, fmt.Sprintf("chown or chmod %s, or give another with --data-dir", at), "%s cannot be written: %v", at, err)
		return
	}
	p.room(at)
	for _, i := range p.others {
		if i.DataDir == full {
			p.add(check, warning, "give each app its own with --data-dir, unless they are to share topics and dead letters", "%s is used by app %s too (process %d)", full, i.AppID, i.Self.PID)
		}
	}
	switch {
	case at != full:
		p.add(check, sound, "", "%s is made at the start", full)
	case info.Mode().Perm()&0o077 != 0:
		p.add(check, warning, "chmod 700 "+full, "others on this machine can look into %s: mode %04o", full, info.Mode().Perm())
	default:
		p.add(check, sound, "", "%s can be written, and only by its owner", full)
	}
}

// writable makes a file there and removes it.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (p *patient) room(dir string) {
	const check = "disk"
	free, err := freeBytes(dir)
	switch {
	case err != nil:
		p.add(check, skipped, "", "free room is not known: %v", err)
	case free < noRoom:
		p.add(check, broken, "make room, or give a --data-dir on another disk", "%d MiB are free at %s", free>>20, dir)
	case free < littleRoom:
		p.add(check, warning, "make room, or give a --data-dir on another disk", "%d MiB are free at %s", free>>20, dir)
	default:
		p.add(check, sound, "", "%.1f GiB are free at %s", float64(free)/(1<<30), dir)
	}
}

// secretFiles looks at who can read files with secrets.
func (p *patient) secretFiles() {
	var files []string
	if p.set != nil {
		for _, c := range p.set.Components {
			if !strings.EqualFold(c.Type, "secretstores.local.file") {
				continue
			}
			for _, it := range c.Metadata {
				if strings.EqualFold(it.Name, "secretsFile") {
					files = append(files, it.Value)
				}
			}
		}
	}
	if p.IdentityDir != "" {
		files = append(files, filepath.Join(p.IdentityDir, "tls.key"))
	}
	if len(files) == 0 {
		p.add("secret files", skipped, "", "there are none")
	}
	for _, name := range files {
		p.secretFile(name)
	}
}

func (p *patient) secretFile(name string) {
	const check = "secret file"
	info, err := os.Stat(name)
	switch {
	case err != nil:
		p.add(check, broken, "make it, or mend its path", "%v", err)
	case info.Mode().Perm()&0o022 != 0:
		p.add(check, broken, "chmod 600 "+name, "others can change %s: mode %04o", name, info.Mode().Perm())
	case info.Mode().Perm()&0o044 != 0:
		p.add(check, warning, "chmod 600 "+name, "others can read %s: mode %04o", name, info.Mode().Perm())
	default:
		p.add(check, sound, "", "%s is its owner's alone", name)
	}
}

// How far the clock may be off: signatures of webhooks and leases bear this much.
const (
	oddClock   = 5 * time.Second
	wrongClock = 2 * time.Minute
)

// clock compares the time with that of the first endpoint that tells one.
func (p *patient) clock(ctx context.Context) {
	const check = "clock"
	var endpoints []config.HTTPEndpoint
	if p.set != nil {
		endpoints = p.set.HTTPEndpoints
	}
	for _, e := range endpoints {
		theirs, err := askTime(ctx, e.BaseURL, min(p.Timeout, 3*time.Second))
		if err != nil {
			continue
		}
		off := time.Since(theirs).Round(time.Second)
		switch {
		case off.Abs() > wrongClock:
			p.add(check, broken, "set the clock: timedatectl set-ntp true", "%s off that of %s: signatures and leases will fail", off, e.Name)
		case off.Abs() > oddClock:
			p.add(check, warning, "set the clock: timedatectl set-ntp true", "%s off that of %s", off, e.Name)
		default:
			p.add(check, sound, "", "as that of %s", e.Name)
		}
		return
	}
	p.add(check, skipped, "", "no HTTPEndpoint that tells the time to compare with")
}

// askTime reads the Date of an answer, whatever the answer is.
func askTime(ctx context.Context, address string, most time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}
