package grpc

import (
	"encoding/json"
	"strconv"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
)

// TopicEvent is an event as OnTopicEvent and streams carry it. Data are the
// bytes of [cloudevents.Event.Data], which the message shares: nobody may change
// them. PubSub and topic say where the event was read, whatever the event's own
// attributes say; they, all others without a field of their own and the opaque
// members are extensions. Path is where the app wants it; a stream has none.
func TopicEvent(e *cloudevents.Event, pubsub, topic, path string) *rtv1.TopicEventRequest {
	return &rtv1.TopicEventRequest{
		Id:              e.ID(),
		Source:          e.Source(),
		Type:            e.Type(),
		SpecVersion:     specVersion(e),
		DataContentType: e.DataContentType(),
		Data:            e.Data(),
		Topic:           topic,
		PubsubName:      pubsub,
		Path:            path,
		Extensions:      extensions(e),
	}
}

// StatusOutcome is what the status of an answer means; where names who gave it,
// for people. After is how long the app asks to wait before a retry.
func StatusOutcome(where string, s rtv1.TopicEventResponse_TopicEventResponseStatus, after time.Duration) cloudevents.Outcome {
	if s == rtv1.TopicEventResponse_SUCCESS {
		return cloudevents.Acked()
	}
	return app.WordOutcome(where, s.String(), after)
}

func specVersion(e *cloudevents.Event) string {
	v, _ := e.Attr("specversion")
	return v
}

// extensions are the attributes that have no field of their own, and the opaque
// members as the values that their JSON says.
func extensions(e *cloudevents.Event) *structpb.Struct {
	n := 0
	for name := range e.Attrs() {
		if !hasField(name) {
			n++
		}
	}
	// All values in two pieces of memory instead of two each.
	values, kinds := make([]structpb.Value, n), make([]structpb.Value_StringValue, n)
	fields := make(map[string]*structpb.Value, n)
	for name, text := range e.Attrs() {
		if hasField(name) {
			continue
		}
		i := len(fields)
		if e.Literal(name) {
			setLiteral(&values[i], text)
		} else {
			kinds[i].StringValue = text
			values[i].Kind = &kinds[i]
		}
		fields[name] = &values[i]
	}
	for name, raw := range e.Members() {
		fields[name] = memberValue(raw)
	}
	return &structpb.Struct{Fields: fields}
}

// memberValue is the value that raw says, or raw as a text when it has a number
// that no float64 holds.
func memberValue(raw []byte) *structpb.Value {
	var v any
	if json.Unmarshal(raw, &v) == nil {
		if value, err := structpb.NewValue(v); err == nil {
			return value
		}
	}
	return structpb.NewStringValue(string(raw))
}

// setLiteral makes v the number or boolean that text is. A number that a
// float64 cannot hold stays its text.
func setLiteral(v *structpb.Value, text string) {
	const exact = 1 << 53
	if text == "true" || text == "false" {
		v.Kind = &structpb.Value_BoolValue{BoolValue: text == "true"}
		return
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && -exact <= n && n <= exact {
		v.Kind = &structpb.Value_NumberValue{NumberValue: float64(n)}
		return
	}
	v.Kind = &structpb.Value_StringValue{StringValue: text}
}

func hasField(name string) bool {
	switch name {
	case "id", "source", "type", "specversion", "datacontenttype":
		return true
	}
	return false
}
