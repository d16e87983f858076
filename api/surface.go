package api

import (
	"slices"
	"strings"
)

// Protocol is how a call came in.
type Protocol string

// The protocols of the API.
const (
	HTTP Protocol = "http"
	GRPC Protocol = "grpc"
)

// Rule names APIs of one protocol, as spec.api of a Configuration does. An API
// is meant when its version is the rule's and its name begins with the rule's:
// "publish" means all of publish, "publish/bulk" the bulk form over HTTP, and
// an empty name everything of that version.
type Rule struct {
	// Name is Dapr's word for a group of APIs: publish, secrets, metadata.
	Name string
	// Version is v1.0, v1.0-alpha1 and so on; v1 and v1alpha1 mean the same.
	Version string
	// Protocol in any case.
	Protocol string
}

// Surface is which APIs there are and what is logged of their calls. The zero
// value allows everything and logs nothing. It does not change once it is in
// use; [API.SetSurface] puts another in its place.
type Surface struct {
	// Denied wins over Allowed. With any Allowed rule of a protocol, that
	// protocol has only what such rules name, and nothing when they name
	// nothing that exists. Health is always there.
	Allowed, Denied []Rule
	// Log is what is logged of calls.
	Log CallLog
}

// CallLog is what is logged of calls.
type CallLog struct {
	// Enabled logs each call that has ended, at info level, without body,
	// query and headers other than the user agent.
	Enabled bool
	// Obfuscate logs the pattern of an API in place of the path, which may
	// hold names that nobody else should read.
	Obfuscate bool
	// OmitHealth leaves out health checks.
	OmitHealth bool
}

// SetSurface puts s in the place of the surface before; calls that have passed
// the check go on. It may be called at any time.
func (a *API) SetSurface(s Surface) {
	s.Allowed, s.Denied = plain(s.Allowed), plain(s.Denied)
	a.surface.Store(&s)
}

// plain returns a copy of the rules with one spelling of each word.
func plain(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		r := &rules[i]
		r.Version, r.Protocol = plainVersion(r.Version), strings.ToLower(r.Protocol)
	}
	return rules
}

// plainVersion writes v1.0-alpha1 as v1alpha1, Dapr's newer form.
func plainVersion(v string) string {
	rest, ok := strings.CutPrefix(v, "v1.0")
	if !ok {
		return v
	}
	return "v1" + strings.TrimPrefix(rest, "-")
}

// Log returns what is to be logged of calls.
func (a *API) Log() CallLog {
	if s := a.surface.Load(); s != nil {
		return s.Log
	}
	return CallLog{}
}

// Restricted tells whether there is any rule; if not, every API is allowed and
// callers need not find out which one a call is for.
func (a *API) Restricted() bool {
	s := a.surface.Load()
	return s != nil && len(s.Allowed)+len(s.Denied) > 0
}

// Allow returns nil when the API of that version and name may be called, else
// an error of APIDenied. Names are as in the paths of HTTP, with or without what
// follows the group: "publish/bulk/{bus}/*".
func (a *API) Allow(p Protocol, version, name string) error {
	s := a.surface.Load()
	if s == nil || s.allows(p, plainVersion(version), name) {
		return nil
	}
	group, _, _ := strings.Cut(name, "/")
	return Errorf(APIDenied, "the %s API is not available over %s: spec.api of the Configuration forbids it", group, p)
}

// AllowMethod is Allow for a method of gRPC, as "/dapr.proto.runtime.v1.Dapr/GetState".
// Services other than Dapr's own are no matter of the rules.
func (a *API) AllowMethod(full string) error {
	method, ok := strings.CutPrefix(full, "/dapr.proto.runtime.v1.Dapr/")
	if !ok || !a.Restricted() {
		return nil
	}
	version := "v1"
	for _, stage := range []string{"Alpha1", "Alpha2", "Beta1"} {
		if base, found := strings.CutSuffix(method, stage); found {
			method, version = base, version+strings.ToLower(stage)
			break
		}
	}
	return a.Allow(GRPC, version, groupOf(method))
}

func (s *Surface) allows(p Protocol, version, name string) bool {
	if p == HTTP && version == "v1" && (name == "healthz" || name == "healthz/outbound") {
		return true
	}
	if _, denied := find(s.Denied, p, version, name); denied {
		return false
	}
	limited, named := find(s.Allowed, p, version, name)
	return named || !limited
}

// find tells whether there is any rule of the protocol, and one that names the
// API.
func find(rules []Rule, p Protocol, version, name string) (limited, named bool) {
	for _, r := range rules {
		if r.Protocol != string(p) {
			continue
		}
		limited = true
		if r.Version == version && strings.HasPrefix(name, r.Name) {
			return true, true
		}
	}
	return limited, false
}

// groupOf returns the group of a method of Dapr's service, without its stage;
// for a method that nobody knows it is the method, which no allow list names.
func groupOf(method string) string {
	switch method {
	case "InvokeService":
		return "invoke"
	case "GetState", "GetBulkState", "SaveState", "QueryState", "DeleteState", "DeleteBulkState", "ExecuteStateTransaction":
		return "state"
	case "PublishEvent", "BulkPublishEvent":
		return "publish"
	case "SubscribeTopicEvents":
		return "subscribe"
	case "InvokeBinding":
		return "bindings"
	case "GetSecret", "GetBulkSecret":
		return "secrets"
	case "RegisterActorTimer", "UnregisterActorTimer", "RegisterActorReminder", "UnregisterActorReminder", "UnregisterActorRemindersByType",
		"ListActorReminders", "GetActorReminder", "GetActorState", "ExecuteActorStateTransaction", "InvokeActor", "SubscribeActorEvents":
		return "actors"
	case "GetConfiguration", "SubscribeConfiguration", "UnsubscribeConfiguration":
		return "configuration"
	case "TryLock":
		return "lock"
	case "Unlock":
		return "unlock"
	case "Encrypt", "Decrypt":
		return "crypto"
	case "SubtleGetKey", "SubtleEncrypt", "SubtleDecrypt", "SubtleWrapKey", "SubtleUnwrapKey", "SubtleSign", "SubtleVerify":
		return "subtlecrypto"
	case "GetMetadata", "SetMetadata":
		return "metadata"
	case "StartWorkflow", "GetWorkflow", "PurgeWorkflow", "TerminateWorkflow", "PauseWorkflow", "ResumeWorkflow", "RaiseEventWorkflow":
		return "workflows"
	case "ScheduleJob", "GetJob", "DeleteJob", "DeleteJobsByPrefix", "ListJobs":
		return "jobs"
	case "Converse":
		return "conversation"
	case "Shutdown":
		return "shutdown"
	}
	return method
}
