// Package consul is the name resolution "nameresolution.hashicorp.consul":
// services of a Consul agent, asked for and registered over its HTTP API.
//
// It is set as spec.nameResolution of a Configuration. An app is the service of
// its id; the internal port stands in the metadata of the service, as Dapr's
// component writes and reads it, so its sidecars and ours find each other.
//
// It promises that only instances whose checks pass are found, that a
// registration which the agent has lost is made again within 30 s, and that no
// token is in an error. Nothing is registered unless selfRegister or
// advancedRegistration says so.
package consul

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("hashicorp.consul", component.About{
	Summary: "Services of a HashiCorp Consul agent",
	Limits:  "A request may take 20 s and an answer 16 MiB.",
	Scale:   "Every process asks the agent, and registers itself when selfRegister says so.",
	Dapr: "All healthy instances are used, not one by chance. The agent's cache is used unless requireConsistent is set. A lost registration is made again. " +
		"Of advancedRegistration there is no proxy, connect, kind or taggedAddresses.",
	Also: []string{names.Kind + ".consul"},
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: hashicorp.consul
    configuration:
      client:
        address: 127.0.0.1:8500
      selfRegister: true
      selfDeregister: true
      tags: [orders]
`,
}, open)

// again is how often a registration is looked at.
const again = 30 * time.Second

type resolver struct {
	o      options
	server *clienthttp.Server
	again  time.Duration
}

func open(ctx context.Context, _ component.Env, o options) (names.Driver, error) {
	conf, err := o.tls()
	if err != nil {
		return nil, err
	}
	server, err := clienthttp.NewServer(o.url(), clienthttp.Options{TLS: conf, UseProxy: true})
	if err != nil {
		return nil, fault.Wrap(err, "read client.address")
	}
	r := &resolver{o: o, server: server, again: again}
	if _, err := r.ask(ctx, clienthttp.Call{Path: "/v1/agent/self"}, o.Token); err != nil {
		server.Close()
		return nil, fault.Wrap(err, "reach the agent")
	}
	return r, nil
}

// ask sends a request with the token and returns the body of an answer that is
// no refusal.
func (r *resolver) ask(ctx context.Context, c clienthttp.Call, token component.Secret) ([]byte, error) {
	secret := token.Reveal()
	if secret == "" && r.o.TokenFile != "" {
		text, err := os.ReadFile(r.o.TokenFile)
		if err != nil {
			return nil, fault.Wrap(err, "read client.tokenFile")
		}
		secret = strings.TrimSpace(string(text))
	}
	if c.Header == nil {
		c.Header = http.Header{}
	}
	if secret != "" {
		c.Header.Set("X-Consul-Token", secret)
	}
	if r.o.Username != "" {
		c.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(r.o.Username+":"+r.o.Password.Reveal())))
	}
	a, err := r.server.Do(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case a.Status/100 != 2:
		return nil, fault.New(fault.FromHTTPStatus(a.Status), "ask %s: it answered %d", r.server.Host(), a.Status)
	}
	return a.Body, nil
}

// query is what every request of services has.
func (r *resolver) query() (url.Values, http.Header) {
	q, h := url.Values{}, http.Header{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("dc", r.o.Datacenter)
	set("dc", r.o.QueryDatacenter)
	set("near", r.o.Near)
	set("filter", r.o.Filter)
	set("ns", r.o.Namespace)
	set("partition", r.o.Partition)
	meta := strip(r.o.NodeMeta, "queryOptions.nodeMeta.")
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		q.Add("node-meta", key+":"+meta[key])
	}
	switch {
	case r.o.RequireConsistent:
		q.Set("consistent", "")
	case r.o.AllowStale:
		q.Set("stale", "")
	}
	if r.o.QueryUseCache && !r.o.RequireConsistent {
		q.Set("cached", "")
		var control []string
		for name, d := range map[string]time.Duration{"max-age": r.o.MaxAge, "stale-if-error": r.o.StaleIfError} {
			if d > 0 {
				control = append(control, name+"="+strconv.FormatInt(int64(d/time.Second), 10))
			}
		}
		if slices.Sort(control); len(control) > 0 {
			h.Set("Cache-Control", strings.Join(control, ", "))
		}
	}
	return q, h
}

// Resolve implements names.Driver. Consul's namespaces are not the app's.
func (r *resolver) Resolve(ctx context.Context, app names.App) ([]string, error) {
	q, h := r.query()
	q.Set("passing", "true")
	token := r.o.QueryToken
	if token.IsZero() {
		token = r.o.Token
	}
	body, err := r.ask(ctx, clienthttp.Call{Path: "/v1/health/service/" + url.PathEscape(app.ID) + "?" + q.Encode(), Header: h}, token)
	if err != nil {
		return nil, err
	}
	var entries []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Meta    map[string]string
		}
	}
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fault.New(fault.Unavailable, "ask %s: its answer is no list of services", r.server.Host())
	}
	var list []string
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		if p, err := strconv.ParseUint(e.Service.Meta[r.o.PortKey], 10, 16); err == nil && p > 0 && host != "" {
			list = append(list, net.JoinHostPort(strings.Trim(host, "[]"), strconv.FormatUint(p, 10)))
		}
	}
	switch {
	case len(entries) == 0:
		return nil, fault.New(fault.NotFound, "no instance passes its checks")
	case len(list) == 0:
		return nil, fault.New(fault.NotFound, "none of %d instances has a port as %s in its metadata", len(entries), r.o.PortKey)
	}
	return list, nil
}

// Announce implements names.Announcer.
func (r *resolver) Announce(ctx context.Context, self names.Self) error {
	reg, ok, err := r.registration(self)
	if err != nil {
		return err
	}
	if !ok { // somebody else registers this process
		<-ctx.Done()
		return nil
	}
	look := time.NewTicker(r.again)
	defer look.Stop()
	err = r.register(ctx, reg)
	for err == nil {
		select {
		case <-ctx.Done():
			return r.takeBack(ctx, reg)
		case <-look.C:
			err = r.keep(ctx, reg)
		}
	}
	if ctx.Err() != nil { // the agent may have heard of it
		return r.takeBack(ctx, reg)
	}
	return err
}

// keep registers again when the agent is there and has forgotten.
func (r *resolver) keep(ctx context.Context, reg registration) error {
	_, err := r.ask(ctx, clienthttp.Call{Path: "/v1/agent/service/" + url.PathEscape(reg.ID)}, r.o.Token)
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return r.register(ctx, reg)
	}
	return nil
}

// takeBack deregisters, when that is wanted; ctx has ended.
func (r *resolver) takeBack(ctx context.Context, reg registration) error {
	if !r.o.SelfDeregister {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := r.ask(ctx, clienthttp.Call{Method: http.MethodPut, Path: "/v1/agent/service/deregister/" + url.PathEscape(reg.ID)}, r.o.Token)
	return fault.Wrap(err, "deregister %s", reg.ID)
}

func (r *resolver) register(ctx context.Context, reg registration) error {
	_, err := r.ask(ctx, clienthttp.Call{Method: http.MethodPut, Path: "/v1/agent/service/register?replace-existing-checks=true", Body: reg}, r.o.Token)
	return fault.Wrap(err, "register %s", reg.ID)
}

// registration is what to tell the agent of this process, if anything.
func (r *resolver) registration(self names.Self) (reg registration, ok bool, err error) {
	switch {
	case len(r.o.Advanced) > 0:
		if reg, err = advanced(r.o.Advanced, self); err != nil {
			return reg, false, fault.Wrap(err, "read advancedRegistration")
		}
		if reg.ID == "" {
			reg.ID = reg.Name
		}
	case r.o.SelfRegister:
		reg, err = r.own(self)
		if err != nil {
			return reg, false, err
		}
	default:
		return reg, false, nil
	}
	if reg.Meta == nil {
		reg.Meta = map[string]string{}
	}
	reg.Meta[r.o.PortKey] = port(self.InternalPort)
	return reg, true, nil
}

// own is the registration that selfRegister makes.
func (r *resolver) own(self names.Self) (registration, error) {
	reg := registration{
		ID: self.ID + "-" + self.Host + "-" + port(self.HTTPPort), Name: self.ID, Address: self.Host, Port: self.AppPort, Meta: map[string]string{},
	}
	for _, tag := range r.o.Tags {
		reg.Tags = append(reg.Tags, fill(tag, self))
	}
	for key, value := range strip(r.o.Meta, "meta.") {
		reg.Meta[key] = fill(value, self)
	}
	var err error
	if reg.Checks, err = checksOf(fill(r.o.Checks, self)); err != nil {
		return reg, fault.Wrap(err, "read checks")
	}
	if len(reg.Checks) == 0 {
		reg.Checks = []check{{
			Name: "Dapr Health Status", CheckID: "daprHealth:" + reg.ID, Interval: "15s",
			HTTP: "http://" + net.JoinHostPort(self.Host, port(self.HTTPPort)) + "/v1.0/healthz?appid=" + url.QueryEscape(self.ID),
		}}
	}
	return reg, nil
}

// port is a number as text.
func port(n int) string { return strconv.Itoa(n) }

// Close implements names.Driver.
func (r *resolver) Close(context.Context) error {
	r.server.Close()
	return nil
}
