package component

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// object is a part of a JSON Schema.
type object = map[string]any

// Schema returns the JSON Schema (2020-12) of the documents that are read, for
// editors: Components of these definitions with their options, Subscriptions,
// Configurations, Resiliencies and Pipelines. It is stricter than the reader, which does not
// look at the case of names and takes unknown ones with a warning. The same
// definitions always give the same bytes.
func Schema(defs []Definition) ([]byte, error) {
	defs = slices.SortedFunc(slices.Values(defs), func(a, b Definition) int { return cmp.Compare(a.Type, b.Type) })
	parts := documentSchemas()
	parts["Component"] = componentSchema(defs)
	for _, d := range defs {
		if !strings.HasPrefix(d.Type, "nameresolution.") {
			parts[d.Type] = d.schema()
		}
	}
	var kinds []object
	for _, kind := range []string{"Component", "Subscription", "SubscriptionV1", "Configuration", "Resiliency", "Pipeline"} {
		kinds = append(kinds, ref(kind))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"$id":     "https://penstock.dev/schema.json",
		"title":   "Penstock resources",
		"oneOf":   kinds,
		"$defs":   parts,
	})
	return b.Bytes(), fault.Wrap(err, "encode schema")
}

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

// record is an object with these properties and no others.
func record(properties object, required ...string) object {
	o := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func text() object             { return object{"type": "string", "minLength": 1} }
func about(s string) object    { return object{"type": "string", "description": s} }
func constant(s string) object { return object{"const": s} }
func truth() object            { return object{"type": "boolean"} }
func textList() object         { return object{"type": "array", "items": text()} }
func listOf(o object) object   { return object{"type": "array", "items": o} }
func anything() object         { return object{} }
func duration() object         { return object{"type": []string{"string", "number"}} }

// values is a mapping of names to plain values.
func values() object {
	return object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}}}
}

// document is one kind of document.
func document(version, kind string, spec object, more object) object {
	properties := object{
		"apiVersion": constant(version), "kind": constant(kind), "metadata": ref("metadata"), "spec": spec,
	}
	maps.Copy(properties, more)
	return record(properties, "apiVersion", "kind", "metadata", "spec")
}

// componentSchema chooses the options by spec.type.
func componentSchema(defs []Definition) object {
	types := []string{}
	var choices []object
	for _, d := range defs {
		if strings.HasPrefix(d.Type, "nameresolution.") {
			continue // a Configuration has it
		}
		types = append(types, d.Type)
		choices = append(choices, object{
			"if":   object{"properties": object{"spec": object{"properties": object{"type": constant(d.Type)}}}},
			"then": object{"properties": object{"spec": ref(d.Type)}},
		})
	}
	spec := record(object{
		"type":         object{"enum": types, "description": "Which component."},
		"version":      about("Version of the component; v1 when absent."),
		"ignoreErrors": object{"type": "boolean", "description": "Start even when this component is configured wrongly."},
		"initTimeout":  about("How long one try to open it may take; 5s when absent."),
		"metadata":     listOf(ref("item")),
	}, "type")
	doc := document("dapr.io/v1alpha1", "Component", spec, object{
		"scopes": textList(), "auth": record(object{"secretStore": text()}),
	})
	if len(choices) > 0 {
		doc["allOf"] = choices
	}
	return doc
}

// schema is that of the spec of a component of this type.
func (d Definition) schema() object {
	var needed []object
	for _, o := range d.Options {
		if o.Required {
			needed = append(needed, object{"contains": object{"properties": object{"name": object{"enum": o.words()}}}})
		}
	}
	metadata := listOf(d.itemSchema())
	spec := object{
		"description": d.About.Summary + ".",
		"properties":  object{"version": object{"enum": d.Versions}, "metadata": metadata},
	}
	if len(needed) > 0 {
		metadata["allOf"] = needed
		spec["required"] = []string{"metadata"}
	}
	return spec
}

// words are the names of the option.
func (o Option) words() []string { return append([]string{o.Name}, o.Aliases...) }

// itemSchema is that of one entry of spec.metadata.
func (d Definition) itemSchema() object {
	var names, rules []object
	for _, o := range slices.Concat(d.Options, d.Common) {
		if o.Name == "*" {
			names = append(names, text())
			continue
		}
		if p := o.prefix(); p != "" {
			names = append(names, object{"type": "string", "pattern": "^" + p + ".", "description": o.explained()})
			continue
		}
		for _, word := range o.words() {
			names = append(names, object{"const": word, "description": o.explained()})
		}
		if v := o.schema(); len(v) > 0 {
			rules = append(rules, object{
				"if":   object{"properties": object{"name": object{"enum": o.words()}}},
				"then": object{"properties": object{"value": v}},
			})
		}
	}
	if len(names) == 0 {
		return object{"not": anything()}
	}
	item := object{"properties": object{"name": object{"anyOf": names}}}
	if len(rules) > 0 {
		item["allOf"] = rules
	}
	return item
}

// schema is that of the option's value.
func (o Option) schema() object {
	v := object{}
	switch o.Type {
	case "bool":
		v["type"] = []string{"boolean", "string", "number"}
	case "int":
		v["type"] = []string{"integer", "string"}
	case "number", "duration", "size":
		v["type"] = []string{"number", "string"}
	}
	if len(o.Enum) > 0 && o.Type == "string" {
		v["enum"] = o.Enum
	}
	if o.Default != "" {
		v["default"] = o.Default
	}
	if o.Example != "" {
		v["examples"] = []string{o.Example}
	}
	return v
}
