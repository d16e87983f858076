//go:build services

package dashboards

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

// TestPrometheus: a real Prometheus scrapes an instance, and each query of the
// dashboards returns something.
func TestPrometheus(t *testing.T) {
	at, err := url.Parse(services.Need(t, "prometheus"))
	if err != nil {
		t.Fatal(err)
	}
	b := start(t)
	targets := at.Query().Get("targets")
	if err := os.WriteFile(targets, []byte(`[{"targets": ["`+b.scrapes+`"]}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(targets) })
	at.RawQuery, at.Path = "", "/api/v1/query"
	fill := strings.NewReplacer("$__rate_interval", "5s", "$app", "shop").Replace
	list := queries(t)
	for _, q := range list {
		eventually(t, q.board+", panel "+q.panel, func() error { return ask(at, fill(q.expr)) })
	}
	t.Logf("%d queries return something", len(list))
}

// ask makes a query, and an error of an empty answer.
func ask(at *url.URL, expr string) error {
	resp, err := http.Get(at.String() + "?" + url.Values{"query": {expr}}.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" || len(answer.Data.Result) == 0 {
		return fmt.Errorf("%s: %d results %s", expr, len(answer.Data.Result), answer.Error)
	}
	return nil
}

// TestPromtool: what is served can be read, and of the names only Dapr's are not to
// the taste of Prometheus.
func TestPromtool(t *testing.T) {
	services.Need(t, "prometheus")
	b := start(t)
	var text string
	eventually(t, "a dead letter is counted", func() (err error) {
		if text, err = b.scrape(); err == nil && !strings.Contains(text, "penstock_route_dead_letters_total{") {
			err = fmt.Errorf("none")
		}
		return err
	})
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
		t.Errorf("promtool ended with %d, %v:\n%s", code, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "dapr_") {
			t.Errorf("promtool says %s", line)
		}
	}
	t.Logf("%d lines about names of Dapr's", strings.Count(string(out), "\n"))
}
