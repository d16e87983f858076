package component

// documentSchemas returns the schemas of the documents that do not depend on
// the components of the build, and of the parts they share.
func documentSchemas() object {
	return object{
		"metadata":       metadataSchema(),
		"item":           itemSchema(),
		"Subscription":   subscriptionSchema("dapr.io/v2alpha1", "routes", routesSchema()),
		"SubscriptionV1": subscriptionSchema("dapr.io/v1alpha1", "route", about("Path of the app that events go to.")),
		"Configuration":  configurationSchema(),
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
		},
	}
	return document("dapr.io/v1alpha1", "Configuration", spec, nil)
}

func pipelineSchema() object {
	spec := record(object{
		"from":        ref("endpoint"),
		"orderingKey": about("CEL over event; events of one key are delivered one after the other."),
		"concurrency": object{"type": "integer", "minimum": 1, "maximum": 1024},
		"steps":       object{"type": "array", "items": ref("step"), "maxItems": 64},
		"to":          object{"type": "array", "items": ref("target"), "minItems": 1, "maxItems": 64},
		"retry": record(object{
			"policy":   object{"enum": []string{"exponential", "constant"}},
			"duration": duration(), "maxInterval": duration(),
			"maxRetries": object{"type": "integer", "minimum": -1, "description": "-1, the default, is for ever."},
		}),
		"timeout":    duration(),
		"deadLetter": ref("endpoint"),
	}, "from", "to")
	return document("penstock.dev/v1", "Pipeline", spec, object{"scopes": textList()})
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
	}}
}
