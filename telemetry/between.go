package telemetry

import (
	"strconv"
	"time"
)

// between are the metrics of calls between apps, under Dapr's names.
type between struct{ sent, received, answered, answers *tally }

func newBetween(m *Metrics) between {
	const name = "dapr_runtime_service_invocation_"
	return between{
		sent:     newTally(m, name+"req_sent_total", "Number of calls that were sent to other apps, each try of them.", "dst_app_id", "type"),
		received: newTally(m, name+"req_recv_total", "Number of calls of other apps.", "src_app_id"),
		answered: newTally(m, name+"res_sent_total", "Number of answers to calls of other apps.", "dst_app_id", "status"),
		answers: newTally(m, name+"res_recv_total", "Number of answers of other apps.", "src_app_id", "status", "type").
			timed(name+"res_recv_latency_ms", "Time until the answer of another app began, in milliseconds.", 2),
	}
}

func (b between) all() []*tally { return []*tally{b.sent, b.received, b.answered, b.answers} }

// CallSent counts one try of a call of another app. A stream is one that says so of
// itself.
func (m *Metrics) CallSent(to string, stream bool) {
	if m != nil && !m.off {
		m.between.sent.add(values{to, typeOfCall(stream)})
	}
}

// CallAnswered counts the answer to it, whose status is one of HTTP or of gRPC. Of a
// stream no time is kept.
func (m *Metrics) CallAnswered(by string, stream bool, status int, took time.Duration) {
	if m == nil || m.off {
		return
	}
	if times := m.between.answers.add(values{by, strconv.Itoa(status), typeOfCall(stream)}); !stream {
		times.Observe(milliseconds(took))
	}
}

// CallReceived counts a call of another app.
func (m *Metrics) CallReceived(from string) {
	if m != nil && !m.off {
		m.between.received.add(values{from})
	}
}

// AnswerSent counts the answer to it.
func (m *Metrics) AnswerSent(to string, status int) {
	if m != nil && !m.off {
		m.between.answered.add(values{to, strconv.Itoa(status)})
	}
}

// toApp are the metrics of calls of the app and of questions for its health, over
// HTTP and gRPC. Dapr's label path is empty, as it is there without path matching.
type toApp struct{ calls, probes, rpcs, rpcProbes *tally }

func newToApp(m *Metrics) toApp {
	return toApp{
		rpcs: newTally(m, "dapr_grpc_io_client_completed_rpcs", "Number of calls of the app that were answered.", "grpc_client_method", "grpc_client_status").
			timed("dapr_grpc_io_client_roundtrip_latency", "Time of a call of the app, in milliseconds.", 2),
		rpcProbes: newTally(m, "dapr_grpc_io_healthprobes_completed_count", "Number of questions for the app's health that were answered.", "grpc_client_status").
			timed("dapr_grpc_io_healthprobes_roundtrip_latency", "Time of a question for the app's health, in milliseconds.", 1),
		calls: newTally(m, "dapr_http_client_completed_count", "Number of calls of the app that were answered.", "method", "path", "status").
			timed("dapr_http_client_roundtrip_latency", "Time of a call of the app, in milliseconds.", 3),
		probes: newTally(m, "dapr_http_healthprobes_completed_count", "Number of questions for the app's health that were answered.", "status").
			timed("dapr_http_healthprobes_roundtrip_latency", "Time of a question for the app's health, in milliseconds.", 1),
	}
}

func (t toApp) all() []*tally { return []*tally{t.calls, t.probes, t.rpcs, t.rpcProbes} }

// AppCalled counts a call of the app over HTTP that was answered.
func (m *Metrics) AppCalled(verb string, status int, took time.Duration) {
	if m == nil || m.off {
		return
	}
	switch {
	case m.settings.ExcludeVerbs:
		verb = ""
	case !known(verb):
		verb = Others
	}
	m.toApp.calls.add(values{verb, "", strconv.Itoa(status)}).Observe(milliseconds(took))
}

// AppRPC counts a call of the app over gRPC that was answered, by a method of Dapr's,
// or the question for its health. Word is the name of the status.
func (m *Metrics) AppRPC(method string, health bool, word string, took time.Duration) {
	switch {
	case m == nil || m.off:
	case health:
		m.toApp.rpcProbes.add(values{word}).Observe(milliseconds(took))
	default:
		m.toApp.rpcs.add(values{method, word}).Observe(milliseconds(took))
	}
}

// Probed counts an answer to the question for the app's health.
func (m *Metrics) Probed(status int, took time.Duration) {
	if m != nil && !m.off {
		m.toApp.probes.add(values{strconv.Itoa(status)}).Observe(milliseconds(took))
	}
}

// policies are the metrics of resiliency.
type policies struct{ loaded, applied, acted *tally }

func newPolicies(m *Metrics) policies {
	labels := []string{"name", "policy", "namespace", "flow_direction", "target", "status"}
	return policies{
		loaded:  newTally(m, "dapr_resiliency_loaded", "Number of times that a Resiliency resource was loaded.", "name", "namespace"),
		applied: newTally(m, "dapr_resiliency_count", "Number of tries that were under a policy.", labels...),
		acted:   newTally(m, "dapr_resiliency_activations_total", "Number of times that a policy did something: ended a try, tried again, or changed its state.", labels...),
	}
}

// Resiliency says what is counted of policies: the resource's name, and what they are
// for.
type Resiliency struct{ Name, Direction, Target string }

// Loaded counts that a Resiliency resource was loaded.
func (m *Metrics) Loaded(name string) {
	if m != nil && !m.off {
		m.policies.loaded.add(values{name, m.o.Namespace})
	}
}

// Applied counts a try under a part of a policy. Status is the state of a breaker.
func (m *Metrics) Applied(r Resiliency, part, status string) {
	if m != nil && !m.off {
		m.policies.applied.add(values{r.Name, part, m.o.Namespace, r.Direction, r.Target, status})
	}
}

// Acted counts that a part of a policy did something.
func (m *Metrics) Acted(r Resiliency, part, status string) {
	if m != nil && !m.off {
		m.policies.acted.add(values{r.Name, part, m.o.Namespace, r.Direction, r.Target, status})
	}
}

// typeOfCall is Dapr's word.
func typeOfCall(stream bool) string {
	if stream {
		return "streaming"
	}
	return "unary"
}
