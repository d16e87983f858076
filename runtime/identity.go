package runtime

import (
	"cmp"
	"context"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/identity/files"
	"github.com/penstock-io/penstock/invoke/identity/sentry"
	"github.com/penstock-io/penstock/invoke/identity/workload"
	"github.com/penstock-io/penstock/telemetry"
)

// IdentityOptions are how this instance proves to others who it is.
type IdentityOptions struct {
	// MTLS turns mutual TLS between instances on or off; nil: it is on when one of
	// Dir and Socket is there, or spec.mtls of the Configuration says so.
	MTLS *bool
	// Dir is the folder of an identity in files, see [files].
	Dir string
	// Socket is the address of a SPIFFE Workload API, see [workload].
	Socket string
	// SentryAddress is that of Dapr's Sentry, see [sentry]; spec.mtls may have it.
	SentryAddress string
	// AnchorsFile holds the trust anchors of Sentry, instead of DAPR_TRUST_ANCHORS.
	AnchorsFile string
	// ControlPlaneTrustDomain and ControlPlaneNamespace are those of Sentry.
	ControlPlaneTrustDomain, ControlPlaneNamespace string
	// Kubernetes tells that Sentry wants a token of Kubernetes.
	Kubernetes bool
}

// The variables that say more about an identity, as tooling sets them.
const (
	anchorsVariable     = "DAPR_TRUST_ANCHORS"
	anchorsFileVariable = "DAPR_TRUST_ANCHORS_FILE"
	tokenVariable       = "DAPR_SENTRY_TOKEN_FILE"
	socketVariable      = "SPIFFE_ENDPOINT_SOCKET"

	kubernetesToken = "/var/run/secrets/dapr.io/sentrytoken/token"
)

// identify finds out where this instance has its identity from. Without mutual TLS
// it has none. What cannot be reached is no error.
func (r *Runtime) identify(c config.MTLS) error {
	source, err := r.identitySource(c)
	if err != nil {
		if c.Enabled && r.o.Identity.MTLS == nil {
			return config.Problems{{Place: c.Place, Text: "spec.mtls is enabled: " + err.Error()}}
		}
		return err
	}
	r.calls.identity = source
	return nil
}

func (r *Runtime) identitySource(c config.MTLS) (identity.Source, error) {
	o := r.o.Identity
	switch {
	case o.MTLS != nil && !*o.MTLS && o.Dir+o.Socket != "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: --enable-mtls=false and an identity contradict each other; leave one out")
	case o.MTLS == nil && o.Dir+o.Socket == "" && !c.Enabled, o.MTLS != nil && !*o.MTLS:
		return nil, nil
	case o.Dir != "" && o.Socket != "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: --identity-dir and --identity-socket are two identities; leave one out")
	case o.Dir != "":
		return files.Open(files.Options{Dir: o.Dir, Namespace: r.namespace(), AppID: r.o.AppID, Logger: telemetry.Part(r.log, "identity")})
	case o.Socket != "":
		return r.workloadIdentity(o.Socket)
	}
	anchors, socket := r.variable(anchorsVariable), r.variable(socketVariable)
	file := cmp.Or(o.AnchorsFile, r.variable(anchorsFileVariable))
	address := cmp.Or(o.SentryAddress, c.SentryAddress)
	switch {
	case anchors == "" && file == "" && address == "" && socket != "":
		return r.workloadIdentity(socket)
	case anchors == "" && file == "" && address == "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: nothing says where the identity comes from; give --identity-dir (`penstock ca` makes one), --identity-socket, or --sentry-address and "+anchorsVariable)
	case anchors == "" && file == "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: Sentry at %s needs trust anchors; set %s, or give --trust-anchors-file", address, anchorsVariable)
	case anchors != "" && file != "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: trust anchors are in %s and in file %s; leave one out", anchorsVariable, file)
	case address == "":
		return nil, fault.New(fault.Invalid, "turn on mutual TLS: there are trust anchors, but no address of Sentry; give --sentry-address")
	}
	token := r.variable(tokenVariable)
	if token == "" && o.Kubernetes {
		token = kubernetesToken
	}
	return sentry.New(sentry.Options{
		Address: address, Anchors: anchors, AnchorsFile: file, TrustDomain: cmp.Or(o.ControlPlaneTrustDomain, c.ControlPlaneTrustDomain),
		Namespace: o.ControlPlaneNamespace, App: identity.ID{Namespace: r.namespace(), App: r.o.AppID}, TokenFile: token, Kubernetes: o.Kubernetes, Logger: telemetry.Part(r.log, "identity"),
	})
}

func (r *Runtime) workloadIdentity(socket string) (identity.Source, error) {
	return workload.New(workload.Options{Socket: socket, Namespace: r.namespace(), AppID: r.o.AppID, Logger: telemetry.Part(r.log, "identity")})
}

func (r *Runtime) namespace() string { return cmp.Or(r.o.Namespace, identity.DefaultNamespace) }

func (r *Runtime) variable(name string) string {
	value, _ := r.o.Env(name)
	return value
}

// lacksIdentity is why this instance cannot prove who it is; empty: it can, or need
// not.
func (r *Runtime) lacksIdentity() string {
	if r.calls.identity == nil {
		return ""
	}
	if _, err := r.calls.identity.Current(); err != nil {
		return "the identity for mutual TLS: " + err.Error()
	}
	return ""
}

// awaitIdentity waits for the first identity, at most as long as for a component:
// an app calls others as soon as it is told that it can.
func (r *Runtime) awaitIdentity(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for r.lacksIdentity() != "" {
		select {
		case <-ctx.Done():
			if why := r.lacksIdentity(); why != "" {
				r.log.Warn("No identity yet, trying again in the background; calls between instances fail", "reason", why)
			}
			return
		case <-look.C:
		}
	}
}
