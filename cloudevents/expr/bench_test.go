package expr

import "testing"

func BenchmarkMatch(b *testing.B) {
	e := scan(b, order)
	c := New()
	for _, r := range []struct{ name, text string }{
		{"plain", `event.type == "order.placed"`},
		{"plain3", `event.type == "order.placed" && (event.region == "us" || event.source.startsWith("/shop"))`},
		{"cel-attribute", `event.type.matches("^order[.]")`},
		{"cel-data", `event.data.total > 100`},
	} {
		b.Run(r.name, func(b *testing.B) {
			f, err := c.CompileFilter(r.text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match(e); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	e := scan(b, order)
	t, err := New().CompileTemplate("{{ event.region }}/{{ event.id }}.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.Render(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJQ(b *testing.B) {
	e := scan(b, order)
	j, err := New().CompileJQ("{id, skus: [.data.items[].sku]}")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Apply(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFirst is what the first expression of a process costs.
func BenchmarkFirst(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New().CompileFilter(`event.type == "x"`); err != nil {
			b.Fatal(err)
		}
	}
}
