package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loadText loads one Configuration document.
func loadText(t *testing.T, text string) (*Set, Problems) {
	t.Helper()
	folder := write(t, map[string]string{"c.yaml": text})
	return Load(Options{Configs: []string{filepath.Join(folder, "c.yaml")}, Env: env()})
}

func TestMetric(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	set, problems := loadText(t, head+`  metric:
    enabled: false
    latencyDistributionBuckets: [1, 2.5, "10"]
    http: {excludeVerbs: true}
    rules:
    - name: m
      labels:
      - name: method
        regex: {orders: "^/orders/.+", bills: bill}
`)
	m := set.Configuration.Metric
	if len(problems) > 0 || m.Enabled == nil || *m.Enabled || !m.ExcludeVerbs || !cmp.Equal(m.Buckets, []float64{1, 2.5, 10}) {
		t.Fatalf("%+v, %v", m, problems)
	}
	if len(m.Rules) != 2 || m.Rules[0].Value != "bills" || m.Rules[1].Metric != "m" || m.Rules[1].Label != "method" || !m.Rules[1].Pattern.MatchString("/orders/1") {
		t.Errorf("rules %+v", m.Rules)
	}
	for text, want := range map[string]string{
		"latencyDistributionBuckets: [1, 1]":                       "latencyDistributionBuckets[1]",
		"latencyDistributionBuckets: [-1]":                         "latencyDistributionBuckets[0]",
		"latencyDistributionBuckets: [x]":                          "want a number of milliseconds",
		"latencyDistributionBuckets: [.inf]":                       "want a number of milliseconds",
		`rules: [{name: m, labels: [{name: l, regex: {a: "("}}]}]`: "missing closing )",
		"rules: [{labels: []}]":                                    "rules[0].name is missing",
		"rules: [{name: m, labels: [{regex: {a: b}}]}]":            "labels[0].name is missing",
		"http: {pathMatching: [/a]}":                               "pathMatching has no effect",
		"http: {increasedCardinality: true}":                       "increasedCardinality has no effect",
		"enable: true":                                             `did you mean "enabled"?`,
	} {
		if _, problems := loadText(t, head+"  metric: {"+text+"}\n"); !strings.Contains(problems.Error(), want) {
			t.Errorf("%s: %v, want %s", text, problems, want)
		}
	}
}
