package component

import "maps"

// documentSchemas returns the schemas of the documents that do not depend on
// the components of the build, and of the parts they share.
func documentSchemas() object {
	return object{
		"metadata":       metadataSchema(),
		"item":           itemSchema(),
		"Subscription":   subscriptionSchema("dapr.io/v2alpha1", "routes", routesSchema()),
		"SubscriptionV1": subscriptionSchema("dapr.io/v1alpha1", "route", about("Path of the app that events go to.")),
		"Configuration":  configurationSchema(),
		"Resiliency":     resiliencySchema(),
		"policyNames":    policyNamesSchema(nil),
		"Pipeline":       pipelineSchema(),
		"endpoint":       endpointSchema("binding", "pubsub"),
		"target":         endpointSchema("binding", "pubsub", "app"),
		"step":           stepSchema(),
	}
}

func metadataSchema() object {
	return object{
		"type": "object",
		"properties": object{
			"name":      object{"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$"},
			"namespace": about("Used only by processes of that namespace."),
			"labels":    anything(), "annotations": anything(),
		},
		"required": []string{"name"},
	}
}

func itemSchema() object {
	secret := record(object{"name": text(), "key": about("Key of the pair in the secret; its name when absent.")}, "name")
	item := record(object{"name": text(), "value": anything(), "secretKeyRef": secret, "envRef": about("Environment variable to take the value from.")}, "name")
	item["oneOf"] = []object{{"required": []string{"value"}}, {"required": []string{"secretKeyRef"}}, {"required": []string{"envRef"}}}
	return item
}

func subscriptionSchema(version, routeField string, route object) object {
	spec := record(object{
		"pubsubname":      text(),
		"topic":           text(),
		routeField:        route,
		"deadLetterTopic": about("Topic for events that cannot be delivered."),
		"metadata":        values(),
		"bulkSubscribe": record(object{
			"enabled":            truth(),
			"maxMessagesCount":   object{"type": "integer", "minimum": 0, "default": 100},
			"maxAwaitDurationMs": object{"type": "integer", "minimum": 0, "default": 1000},
		}),
		"concurrency": object{"type": "integer", "minimum": 1, "maximum": 1024, "description": "How many events may be under way at once."},
		"maxInFlight": maxInFlight(),
		"orderingKey": about("CEL over event; events of one key are delivered one after the other."),
		"retry":       retrySchema(),
		"dedupe":      dedupeSchema(),
	}, "pubsubname", "topic", routeField)
	return document(version, "Subscription", spec, object{"scopes": textList()})
}

func routesSchema() object {
	return record(object{
		"rules":   listOf(record(object{"match": about("CEL over event; always when absent."), "path": text()}, "path")),
		"default": about("Path for events that no rule matches."),
	})
}

func configurationSchema() object {
	scope := record(object{
		"storeName": text(), "defaultAccess": object{"enum": []string{"allow", "deny"}},
		"allowedSecrets": textList(), "deniedSecrets": textList(),
	}, "storeName")
	spec := object{
		"type": "object",
		"properties": object{
			"components": record(object{"deny": textList()}),
			"secrets":    record(object{"scopes": listOf(scope)}),
			"mtls": record(object{
				"enabled":                 object{"type": "boolean", "description": "Mutual TLS between instances."},
				"sentryAddress":           about("Where Dapr's Sentry issues identities, HOST:PORT."),
				"controlPlaneTrustDomain": about("Trust domain of Sentry itself; localhost when absent."),
				"workloadCertTTL":         about("For Sentry alone."),
				"allowedClockSkew":        about("For Sentry alone."),
				"tokenValidators":         object{"type": "array", "items": object{"type": "object"}, "description": "For Sentry alone."},
			}),
			"nameResolution": record(object{
				"component":     object{"type": "string", "minLength": 1, "description": "How other apps are found: mdns, sqlite, kubernetes and so on."},
				"version":       about("Version of the component; v1 when absent."),
				"configuration": object{"type": "object", "description": "Options of the component."},
			}, "component"),
		},
	}
	return document("dapr.io/v1alpha1", "Configuration", spec, nil)
}

func resiliencySchema() object {
	policies := record(object{
		"timeouts": named(millis()),
		"retries": named(record(object{
			"policy":      object{"enum": []string{"constant", "exponential"}, "default": "constant"},
			"duration":    object{"type": []string{"string", "integer"}, "default": "5s", "description": "Pause of a constant policy."},
			"maxInterval": object{"type": []string{"string", "integer"}, "default": "60s", "description": "Longest pause of an exponential policy."},
			"maxRetries":  object{"type": "integer", "minimum": -1, "default": -1, "description": "-1 is for ever."},
			"budget":      object{"type": []string{"string", "integer"}, "examples": []string{"20%"}, "description": "Tries after the first, as a share of all calls of the target; no bound by default. Penstock's own."},
			"matching": record(object{
				"httpStatusCodes": codes("The only HTTP status codes that are tried again.", "429,500-599"),
				"gRPCStatusCodes": codes("The only gRPC codes that are tried again.", "1,8-14"),
			}),
		})),
		"circuitBreakers": named(record(object{
			"maxRequests": object{"type": "integer", "minimum": 0, "default": 1, "description": "Calls let through half-open."},
			"interval":    millis(),
			"timeout":     object{"type": []string{"string", "integer"}, "default": "60s", "description": "How long it stays open."},
			"trip":        object{"type": "string", "default": "consecutiveFailures > 5", "description": "CEL over requests, totalSuccesses, totalFailures, consecutiveSuccesses and consecutiveFailures."},
		})),
	})
	cache := object{"type": "integer", "minimum": 0}
	targets := record(object{
		"apps":       named(policyNamesSchema(object{"circuitBreakerCacheSize": cache})),
		"actors":     named(policyNamesSchema(object{"circuitBreakerCacheSize": cache, "circuitBreakerScope": object{"enum": []string{"type", "id", "both"}}})),
		"components": named(policyNamesSchema(object{"inbound": ref("policyNames"), "outbound": ref("policyNames")})),
	})
	return document("dapr.io/v1alpha1", "Resiliency", record(object{"policies": policies, "targets": targets}), object{"scopes": textList()})
}

// policyNamesSchema names the policies of a target, beside other fields.
func policyNamesSchema(more object) object {
	properties := object{"timeout": text(), "retry": text(), "circuitBreaker": text()}
	maps.Copy(properties, more)
	return record(properties)
}

// named is a mapping of names that people choose.
func named(value object) object { return object{"type": "object", "additionalProperties": value} }

// millis is a duration in which a bare number is milliseconds.
func millis() object {
	return object{"type": []string{"string", "integer"}, "description": "A duration such as 5s; a number is milliseconds."}
}

func codes(what, example string) object {
	return object{"type": []string{"string", "integer"}, "description": what, "examples": []string{example}}
}

func pipelineSchema() object {
	spec := record(object{
		"from":        ref("endpoint"),
		"orderingKey": about("CEL over event; events of one key are delivered one after the other."),
		"concurrency": object{"type": "integer", "minimum": 1, "maximum": 1024},
		"steps":       object{"type": "array", "items": ref("step"), "maxItems": 64},
		"to":          object{"type": "array", "items": ref("target"), "minItems": 1, "maxItems": 64},
		"maxInFlight": maxInFlight(),
		"dedupe":      dedupeSchema(),
		"retry":       retrySchema(),
		"timeout":     duration(),
		"deadLetter":  ref("endpoint"),
	}, "from", "to")
	return document("penstock.dev/v1", "Pipeline", spec, object{"scopes": textList()})
}

func maxInFlight() object {
	return object{"type": "integer", "minimum": 1, "maximum": 1 << 20, "description": "How many events may be taken from the source and not settled."}
}

func retrySchema() object {
	return record(object{
		"policy":   object{"enum": []string{"exponential", "constant"}},
		"duration": duration(), "maxInterval": duration(),
		"maxRetries": object{"type": "integer", "minimum": -1, "description": "-1 is for ever; 8 when absent."},
	})
}

func dedupeSchema() object {
	return object{"oneOf": []object{truth(), record(object{
		"key":   about("CEL over event that tells events apart; source and id when absent."),
		"ttl":   duration(),
		"store": about("State store that remembers them for all replicas; the data folder when absent."),
	})}}
}

// endpointSchema takes each kind as a name or as a mapping.
func endpointSchema(kinds ...string) object {
	full := object{
		"binding": record(object{"name": text(), "operation": text(), "metadata": values()}, "name"),
		"pubsub":  record(object{"name": text(), "topic": text(), "metadata": values()}, "name", "topic"),
		"app":     record(object{"route": text()}, "route"),
	}
	var choices []object
	for _, kind := range kinds {
		beside := object{kind: text()}
		needed := []string{kind}
		switch kind {
		case "binding":
			beside["operation"], beside["metadata"] = text(), values()
		case "pubsub":
			beside["topic"], beside["metadata"] = text(), values()
			needed = append(needed, "topic")
		}
		choices = append(choices, record(beside, needed...), record(object{kind: full[kind]}, kind))
	}
	return object{"oneOf": choices}
}

func stepSchema() object {
	attributes := object{"type": "object", "minProperties": 1, "propertyNames": object{"pattern": "^[a-z0-9]{1,64}$"}, "additionalProperties": text()}
	return object{"oneOf": []object{
		record(object{"filter": about("CEL over event; events for which it is false end here.")}, "filter"),
		record(object{"transform": record(object{"jq": about("Program over the whole event; its result is the new data.")}, "jq")}, "transform"),
		record(object{"set": attributes}, "set"),
		record(object{"enrich": object{"oneOf": []object{enrichSchema("store", "State store that is read."), enrichSchema("secretStore", "Secret store that is read.")}}}, "enrich"),
		record(object{"save": record(object{
			"store": about("State store that is written."),
			"key":   about("CEL over event; the key."),
			"jq":    about("Program whose result is saved; the data when absent."),
			"ttl":   about("How long it is kept; for ever when absent."),
		}, "store", "key")}, "save"),
	}}
}

// enrichSchema is an enrich step that reads from one kind of store.
func enrichSchema(field, doc string) object {
	return record(object{
		field: about(doc),
		"key": about("CEL over event; the key."),
		"as":  about("Member of the data that gets the value."),
	}, field, "key", "as")
}
