package runtime

import (
	"slices"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/console"
)

// draftFile is where problems of a text that is being written stand.
const draftFile = "this text"

// draft says what would come of taking a text over: its documents beside those
// that the files have now, in the place of those with the same names. Values of
// the environment are not looked at, because messages show what is wrong.
func (r *Runtime) draft(text []byte) console.Draft {
	o := r.o.reader()
	before, known := Load(r.o.Components, o)
	written, configurations, problems := config.ParseDraft(draftFile, text, o, func(name string) (string, bool) {
		value, ok := r.o.Env(name)
		if ok && name != "DAPR_ENV_KEYS" { // which says what may be looked at
			value = "***"
		}
		return value, ok
	})
	after := withDraft(before, written)
	if len(configurations) > 0 {
		after.Configuration = written.Configuration
	}
	old := map[string]bool{}
	for _, p := range known {
		old[p.Place.String()+p.Text] = true
	}
	problems = append(problems, Check(r.o.Components, after)...)
	out := console.Draft{Problems: []console.Problem{}, Notes: []string{}, Changes: []console.Change{}}
	for _, p := range problems {
		if p.Place.File != draftFile && old[p.Place.String()+p.Text] {
			continue
		}
		told := console.Problem{File: p.Place.File, Line: p.Place.Line, Column: p.Place.Column, Text: p.Text, Hint: p.Hint, Warning: p.Lenient}
		if told.File == draftFile {
			told.File = ""
		}
		out.Problems = append(out.Problems, told)
	}
	for _, s := range written.Skipped {
		out.Notes = append(out.Notes, s.String())
	}
	out.Changes = append(out.Changes, changesOf(config.Diff(before, after))...)
	parts := configurationChanges(before.Configuration, after.Configuration)
	out.Changes = append(out.Changes, parts...)
	for _, name := range configurations {
		out.Notes = append(out.Notes, "Configuration "+name+" belongs in a file that --config names; in a resource folder it is not used")
	}
	for _, c := range parts {
		if c.Name == "spec.mtls" || c.Name == "spec.metric" {
			out.Notes = append(out.Notes, c.Name+" is taken over with the next start, not by a reload")
		}
	}
	return out
}

// withDraft is a set with the documents of another in the place of its own of
// the same names.
func withDraft(set, fresh *config.Set) *config.Set {
	out := *set
	fresh, out.Broken = whole(fresh), nil
	out.Components = replace(set.Components, fresh.Components, func(c config.Component) string { return c.Name })
	out.Subscriptions = replace(set.Subscriptions, fresh.Subscriptions, func(s config.Subscription) string { return s.Name })
	out.Pipelines = replace(set.Pipelines, fresh.Pipelines, func(p config.Pipeline) string { return p.Name })
	out.Resiliencies = replace(set.Resiliencies, fresh.Resiliencies, func(r config.Resiliency) string { return r.Name })
	out.HTTPEndpoints = replace(set.HTTPEndpoints, fresh.HTTPEndpoints, func(e config.HTTPEndpoint) string { return e.Name })
	out.Elsewhere = slices.Concat(set.Elsewhere, fresh.Elsewhere)
	return &out
}

func replace[T any](list, fresh []T, name func(T) string) []T {
	out := slices.DeleteFunc(slices.Clone(list), func(t T) bool {
		return slices.ContainsFunc(fresh, func(f T) bool { return name(f) == name(t) })
	})
	return append(out, fresh...)
}

func changesOf(c config.Changes) []console.Change {
	return slices.Concat(
		changed("Component", c.Components, func(c config.Component) string { return c.Name }),
		changed("Subscription", c.Subscriptions, func(s config.Subscription) string { return s.Name }),
		changed("Pipeline", c.Pipelines, func(p config.Pipeline) string { return p.Name }),
		changed("Resiliency", c.Resiliencies, func(r config.Resiliency) string { return r.Name }),
		changed("HTTPEndpoint", c.HTTPEndpoints, func(e config.HTTPEndpoint) string { return e.Name }),
	)
}

// configurationChanges names the parts of the Configuration that differ.
func configurationChanges(before, after config.Configuration) (list []console.Change) {
	for _, part := range []struct {
		name string
		same bool
	}{
		{"spec.accessControl", config.Equal(before.Access, after.Access)},
		{"spec.api", config.Equal(before.API, after.API)},
		{"spec.appHttpPipeline", config.Equal(before.ToApp, after.ToApp)},
		{"spec.components", config.Equal(before.Denied, after.Denied)},
		{"spec.httpPipeline", config.Equal(before.Inbound, after.Inbound)},
		{"spec.logging", config.Equal(before.APILog, after.APILog)},
		{"spec.metric", config.Equal(before.Metric, after.Metric)},
		{"spec.mtls", config.Equal(before.MTLS, after.MTLS)},
		{"spec.nameResolution", config.Equal(before.Names, after.Names)},
		{"spec.secrets", config.Equal(before.SecretScopes, after.SecretScopes)},
		{"spec.tracing", config.Equal(before.Tracing, after.Tracing)},
	} {
		if !part.same {
			list = append(list, console.Change{Kind: "Configuration", Name: part.name, Change: "changed"})
		}
	}
	return list
}

func changed[T any](kind string, d config.Delta[T], name func(T) string) (list []console.Change) {
	for word, docs := range map[string][]T{"added": d.Added, "changed": d.Changed, "removed": d.Removed} {
		for _, doc := range docs {
			list = append(list, console.Change{Kind: kind, Name: name(doc), Change: word})
		}
	}
	slices.SortFunc(list, func(a, b console.Change) int { return strings.Compare(a.Name, b.Name) })
	return list
}
