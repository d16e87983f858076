//go:build services

package ledger

// mqttBroker does not show what a session holds; an event that is lost is missed
// at the end.
func mqttBroker(kind string) *broker {
	b := &broker{
		name: kind,
		resource: func(x *run) string {
			return componentYAML("pubsub."+kind, "url", "mqtt://"+x.addr)
		},
		order: oneReplica,
		alone: true,
		not: map[string]string{
			"app hangs on one key": "acknowledgements go out in order, and Mosquitto sends no more than 20 messages without one",
			"broker killed":        "Mosquitto writes to the disk once a second, so it loses what it had confirmed",
		},
	}
	return b.opens("mqtt", hostOf)
}
