package config

import "slices"

// ParseDraft is Parse for a text that is being written, which may hold documents
// of every kind. The Configuration of its set is what the configuration files and
// the text would make together: the documents of the text stand in the place of
// those of the same names, and come last. A text without a Configuration leaves
// it empty. The names of those that it has are returned. The environment of the
// text is env; that of the files is o.Env.
func ParseDraft(name string, data []byte, o Options, env func(name string) (value string, ok bool)) (*Set, []string, Problems) {
	text := source{name: name, data: data, draft: true}
	hidden := o
	hidden.Env = env
	r := newReader([]source{text}, hidden)
	r.read(text)
	if len(r.drafted) > 0 {
		all := newReader(nil, o)
		all.instead = r.drafted
		for _, s := range gather(Options{Configs: o.Configs}) {
			if s.problem == nil {
				all.read(s)
			}
		}
		all.o.Env = env
		all.read(text)
		r.set.Configuration = all.set.Configuration
	}
	return r.set, r.drafted, r.problems
}

// taken tells whether a Configuration is used: one of a file is not when the
// draft has another of its name.
func (r *reader) taken(name string) bool {
	if r.draft && !slices.Contains(r.drafted, name) {
		r.drafted = append(r.drafted, name)
	}
	return r.draft || !slices.Contains(r.instead, name)
}
