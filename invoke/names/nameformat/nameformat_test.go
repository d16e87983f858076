package nameformat

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		format string
		app    names.App
		want   string
	}{
		{"{appid}.internal:7", names.App{ID: "shop"}, "shop.internal:7"},
		{"service-{appid}.default.svc", names.App{ID: "shop"}, "service-shop.default.svc:50002"},
		{"{appid}.{namespace}.svc:1", names.App{ID: "shop"}, "shop.home.svc:1"},
		{"{appid}.{namespace}.svc:1", names.App{ID: "shop", Namespace: "prod"}, "shop.prod.svc:1"},
		{"{appid}-{appid}:1", names.App{ID: "a"}, "a-a:1"},
		{"{appid}.internal:7", names.App{ID: "evil.example.com:80/"}, ""},
		{"{appid}.internal:7", names.App{ID: "a#"}, ""},
		{"{appid}.internal:7", names.App{ID: "{namespace}"}, ""},
		{"{appid}.internal:7", names.App{}, ""},
		{"{appid}.{namespace}:7", names.App{ID: "a", Namespace: "b:1/"}, ""},
	} {
		d, err := Component.Open(t.Context(), component.Env{Namespace: "home"}, []config.Item{{Name: "format", Value: row.format}})
		if err != nil {
			t.Fatal(err)
		}
		list, err := d.(names.Driver).Resolve(t.Context(), row.app)
		if row.want == "" {
			if fault.KindOf(err) != fault.NotFound || len(list) > 0 {
				t.Errorf("%s of %+v: %v, %v", row.format, row.app, list, err)
			}
		} else if len(list) != 1 || list[0] != row.want {
			t.Errorf("%s of %+v: %v, %v, want %s", row.format, row.app, list, err, row.want)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"": "needs option", "shop:1": "no {appid}", "http://{appid}:1": "without a scheme"} {
		problems := Component.Check([]config.Item{{Name: "format", Value: format}})
		if format == "" {
			problems = Component.Check(nil)
		}
		if len(problems) != 1 || !strings.Contains(problems[0].Text, want) {
			t.Errorf("%q: %v, want %q", format, problems, want)
		}
	}
}
