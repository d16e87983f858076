package component

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// shortest is the length of the shortest secret that is found wherever it stands.
const shortest = 4

// secretValues are the values that must not be shown, and what is secret of the
// others, the longest first: one may hold another.
func secretValues(items []config.Item, option func(name string) *Option) []string {
	var out []string
	for _, it := range items {
		if it.Value == "" {
			continue
		}
		if opt := option(it.Name); it.Secret || opt != nil && opt.Type == "secret" || (opt == nil || opt.Type == "any") && config.SpeaksOfSecret(it.Name) {
			out = append(out, it.Value)
		}
		out = append(out, pieces(it.Value)...)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	return slices.DeleteFunc(slices.Compact(out), func(s string) bool { return s == "" })
}

// hide takes the secret values out of a text. A very short one is only found in
// quotes: hiding every "a" would leave no text.
func hide(secrets []string, text string) string {
	for _, s := range secrets {
		quoted := strconv.Quote(s)
		text = strings.ReplaceAll(text, quoted, "***")
		if len(s) >= shortest {
			text = strings.ReplaceAll(text, s, "***")
			text = strings.ReplaceAll(text, quoted[1:len(quoted)-1], "***")
		}
	}
	return text
}

// secrets are the secret values among the items of this component.
func (d Definition) secrets(items []config.Item) []string {
	return secretValues(items, func(name string) *Option {
		for _, list := range [][]Option{d.Options, d.Common} {
			if i := slices.IndexFunc(list, func(o Option) bool {
				return slices.ContainsFunc(o.words(), func(w string) bool { return strings.EqualFold(w, name) })
			}); i >= 0 {
				return &list[i]
			}
		}
		return nil
	})
}

// Hide returns err without the component's secret values in its text: what the
// driver reports may quote an address or a key that came from a secret store.
// The kind stays. An error without secrets is returned as it is.
func (i *Instance[D]) Hide(err error) error {
	if err == nil || len(i.secrets) == 0 {
		return err
	}
	text := err.Error()
	clean := hide(i.secrets, text)
	if clean == text {
		return err
	}
	return fault.WithRetryAfter(fault.New(fault.KindOf(err), "%s", clean), fault.RetryAfter(err))
}
