package consul

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

type options struct {
	Address    string           `meta:"client.address" default:"127.0.0.1:8500" doc:"Host and port of the agent, or a URL."`
	Scheme     string           `meta:"client.scheme" default:"http" enum:"http|https" doc:"How to speak to the agent."`
	Datacenter string           `meta:"client.datacenter" doc:"Datacenter to ask; that of the agent when empty."`
	Username   string           `meta:"client.httpAuth.username" doc:"User for basic authentication."`
	Password   component.Secret `meta:"client.httpAuth.password" doc:"Password for basic authentication."`
	Token      component.Secret `meta:"client.token" doc:"ACL token."`
	TokenFile  string           `meta:"client.tokenFile" doc:"File with the ACL token; it is read again for each request."`
	ServerName string           `meta:"client.tlsConfig.address" doc:"Whom the agent's certificate is for; the host when empty."`
	CAFile     string           `meta:"client.tlsConfig.caFile" doc:"File of the certificates to trust."`
	CAPath     string           `meta:"client.tlsConfig.caPath" doc:"Folder of the certificates to trust."`
	CertFile   string           `meta:"client.tlsConfig.certFile" doc:"File of the certificate to show."`
	KeyFile    string           `meta:"client.tlsConfig.keyFile" doc:"File of the key of certFile."`
	SkipVerify bool             `meta:"client.tlsConfig.insecureSkipVerify" doc:"Take any certificate of the agent."`

	SelfRegister   bool              `meta:"selfRegister" doc:"Register this process with the agent."`
	SelfDeregister bool              `meta:"selfDeregister" doc:"Take the registration back at the end."`
	Checks         string            `meta:"checks" doc:"Checks of the registration, as a list of mappings with Consul's names; that of the sidecar's health when empty." example:"[{name: health, interval: 15s, http: http://localhost:3500/v1.0/healthz}]"`
	Tags           []string          `meta:"tags" doc:"Tags of the registration."`
	Meta           map[string]string `meta:"meta.*" doc:"More metadata of the registration, below meta."`
	PortKey        string            `meta:"daprPortMetaKey" default:"DAPR_PORT" doc:"Metadata that holds the internal port."`
	Advanced       map[string]string `meta:"advancedRegistration.*" doc:"The whole registration, below advancedRegistration, in the place of selfRegister, checks, tags and meta: id, name, address, port, tags, meta, check, checks, weights, enableTagOverride."`

	QueryDatacenter   string            `meta:"queryOptions.datacenter" doc:"Datacenter to look in."`
	AllowStale        bool              `meta:"queryOptions.allowStale" doc:"Let any server answer, with what it knows."`
	RequireConsistent bool              `meta:"queryOptions.requireConsistent" doc:"Have the leader make sure that it leads."`
	QueryUseCache     bool              `meta:"queryOptions.useCache" default:"true" doc:"Let the agent answer from its cache; not with requireConsistent."`
	MaxAge            time.Duration     `meta:"queryOptions.maxAge" doc:"How old an answer from the cache may be."`
	StaleIfError      time.Duration     `meta:"queryOptions.staleIfError" doc:"How much older when the servers are away."`
	QueryToken        component.Secret  `meta:"queryOptions.token" doc:"ACL token of the queries."`
	Near              string            `meta:"queryOptions.near" doc:"Node to sort by nearness to."`
	Filter            string            `meta:"queryOptions.filter" doc:"Filter expression." example:"Service.Tags contains dapr"`
	Namespace         string            `meta:"queryOptions.namespace" doc:"Consul namespace (Enterprise)."`
	Partition         string            `meta:"queryOptions.partition" doc:"Admin partition (Enterprise)."`
	NodeMeta          map[string]string `meta:"queryOptions.nodeMeta.*" doc:"Metadata that a node must have, below nodeMeta."`

	UseCache      component.Ignored `meta:"useCache" doc:"Answers are always kept, see name resolution."`
	WaitTime      component.Ignored `meta:"client.waitTime" doc:"No request waits for a change."`
	QueryWaitTime component.Ignored `meta:"queryOptions.waitTime" doc:"No request waits for a change."`
	WaitIndex     component.Ignored `meta:"queryOptions.waitIndex" doc:"No request waits for a change."`
	WaitHash      component.Ignored `meta:"queryOptions.waitHash" doc:"No request waits for a change."`
	RelayFactor   component.Ignored `meta:"queryOptions.relayFactor" doc:"It has no meaning for queries of services."`
	LocalOnly     component.Ignored `meta:"queryOptions.localOnly" doc:"It has no meaning for queries of services."`
	Connect       component.Ignored `meta:"queryOptions.connect" doc:"Sidecars are reached directly."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	if o.AllowStale && o.RequireConsistent {
		errs = append(errs, component.OptionErrorf("queryOptions.requireConsistent", "cannot be had with allowStale"))
	}
	if _, err := checksOf(o.Checks); err != nil {
		errs = append(errs, component.OptionErrorf("checks", "%v", err))
	}
	if len(o.Advanced) > 0 {
		if _, err := advanced(o.Advanced, names.Self{App: names.App{ID: "id"}, Host: "host"}); err != nil {
			errs = append(errs, component.OptionErrorf(o.anyAdvanced(), "%v", err))
		}
	}
	if o.PortKey == "" {
		errs = append(errs, component.OptionErrorf("daprPortMetaKey", "is empty"))
	}
	return errors.Join(errs...)
}

// anyAdvanced is the name of one of the options, to say where they are.
func (o options) anyAdvanced() string {
	return "advancedRegistration." + slices.Sorted(maps.Keys(strip(o.Advanced, "advancedRegistration.")))[0]
}

// url is the agent's.
func (o options) url() string {
	if strings.Contains(o.Address, "://") {
		return o.Address
	}
	return o.Scheme + "://" + o.Address
}

func (o options) tls() (*tls.Config, error) {
	c := clienttls.Options{
		CA: clienttls.Text{Option: "client.tlsConfig.caFile", Value: o.CAFile}, Cert: clienttls.Text{Option: "client.tlsConfig.certFile", Value: o.CertFile},
		Key: clienttls.Text{Option: "client.tlsConfig.keyFile", Value: o.KeyFile}, ServerName: o.ServerName, SkipVerify: o.SkipVerify,
	}
	if o.CAFile == "" && o.CAPath != "" {
		files, err := filepath.Glob(filepath.Join(o.CAPath, "*"))
		if err != nil {
			return nil, fault.New(fault.Invalid, "read client.tlsConfig.caPath: %w", err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, fault.Wrap(err, "read client.tlsConfig.caPath")
			}
			c.CA.Value += string(text) + "\n"
		}
	}
	if c.IsZero() {
		return nil, nil
	}
	return c.Config()
}

// check is one of a registration, with Consul's names.
type check struct {
	CheckID                        string              `json:"CheckID,omitempty"`
	Name                           string              `json:"Name,omitempty"`
	Args                           []string            `json:"Args,omitempty"`
	DockerContainerID              string              `json:"DockerContainerID,omitempty"`
	Shell                          string              `json:"Shell,omitempty"`
	Interval                       string              `json:"Interval,omitempty"`
	Timeout                        string              `json:"Timeout,omitempty"`
	TTL                            string              `json:"TTL,omitempty"`
	HTTP                           string              `json:"HTTP,omitempty"`
	Header                         map[string][]string `json:"Header,omitempty"`
	Method                         string              `json:"Method,omitempty"`
	TCP                            string              `json:"TCP,omitempty"`
	Status                         string              `json:"Status,omitempty"`
	Notes                          string              `json:"Notes,omitempty"`
	TLSSkipVerify                  bool                `json:"TLSSkipVerify,omitempty"`
	GRPC                           string              `json:"GRPC,omitempty"`
	GRPCUseTLS                     bool                `json:"GRPCUseTLS,omitempty"`
	AliasNode                      string              `json:"AliasNode,omitempty"`
	AliasService                   string              `json:"AliasService,omitempty"`
	DeregisterCriticalServiceAfter string              `json:"DeregisterCriticalServiceAfter,omitempty"`
}

// registration is what the agent is told of a process.
type registration struct {
	ID                string            `json:"ID,omitempty"`
	Name              string            `json:"Name"`
	Address           string            `json:"Address,omitempty"`
	Port              int               `json:"Port,omitempty"`
	Tags              []string          `json:"Tags,omitempty"`
	Meta              map[string]string `json:"Meta,omitempty"`
	Check             *check            `json:"Check,omitempty"`
	Checks            []check           `json:"Checks,omitempty"`
	Weights           map[string]int    `json:"Weights,omitempty"`
	EnableTagOverride bool              `json:"EnableTagOverride,omitempty"`
}

// strictly reads JSON whose names must be known, in any case.
func strictly(text string, into any) error {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.New(fault.Invalid, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// checksOf reads the option checks.
func checksOf(text string) (list []check, err error) {
	if text == "" {
		return nil, nil
	}
	return list, strictly(text, &list)
}

// strip removes what all the names begin with, in whatever case.
func strip(all map[string]string, prefix string) map[string]string {
	out := make(map[string]string, len(all))
	for name, value := range all {
		out[name[len(prefix):]] = value
	}
	return out
}

// advanced puts the options below advancedRegistration together again, for a
// process.
func advanced(all map[string]string, self names.Self) (r registration, err error) {
	tree := map[string]any{}
	for name, value := range strip(all, "advancedRegistration.") {
		value = fill(value, self)
		parts := strings.SplitN(name, ".", 2)
		first := strings.ToLower(parts[0])
		if len(parts) == 1 {
			tree[first] = leaf(first, value)
			continue
		}
		below, ok := tree[first].(map[string]any)
		if !ok {
			below = map[string]any{}
			tree[first] = below
		}
		if first == "meta" {
			below[parts[1]] = value
		} else {
			below[parts[1]] = leaf(strings.ToLower(parts[1]), value)
		}
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return r, fault.New(fault.Invalid, "put the registration together: %w", err)
	}
	if err := strictly(string(text), &r); err != nil {
		return r, err
	}
	if r.Name == "" {
		return r, fault.New(fault.Invalid, "the registration has no name")
	}
	return r, nil
}

// leaf gives a value back the form that it was written in.
func leaf(name, value string) any {
	switch name {
	case "tags", "args":
		return strings.Split(value, ",")
	case "checks", "header", "port", "passing", "warning", "tlsskipverify", "grpcusetls", "enabletagoverride":
		if json.Valid([]byte(value)) {
			return json.RawMessage(value)
		}
	}
	return value
}

// fill puts what is about this process in the place of ${NAME}.
func fill(text string, self names.Self) string {
	return os.Expand(text, func(name string) string {
		switch name {
		case "APP_ID":
			return self.ID
		case "HOST_ADDRESS":
			return self.Host
		case "APP_PORT":
			return port(self.AppPort)
		case "DAPR_HTTP_PORT":
			return port(self.HTTPPort)
		case "DAPR_GRPC_PORT":
			return port(self.GRPCPort)
		case "DAPR_PORT":
			return port(self.InternalPort)
		}
		return "${" + name + "}"
	})
}
