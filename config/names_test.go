package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// What is nested becomes options with dots in their names, each with its place.
func TestNameResolution(t *testing.T) {
	t.Parallel()
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"CONSUL": "10.0.0.9:8500", "APP_PORT": "8080"}[name]
		return v, ok
	}
	folder := write(t, map[string]string{"config.yaml": `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: c
spec:
  nameResolution:
    component: consul
    version: v1
    configuration:
      client:
        address: "127.0.0.1:8500"
      selfRegister: on
      tags: [dapr, 7]
      checks:
        - name: "health of ${APP_ID}"
          interval: 15s
      meta:
        A.B: "{appID}"
      none:
`})
	set, problems := Load(Options{AppID: "shop", Configs: []string{filepath.Join(folder, "config.yaml")}, Env: env})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	n := set.Configuration.Names
	var got []string
	for _, it := range n.Metadata {
		got = append(got, fmt.Sprintf("%s=%s @%d:%d", it.Name, it.Value, it.Place.Line, it.Place.Column))
	}
	want := []string{
		"client.address=127.0.0.1:8500 @11:18", "selfRegister=true @12:21", "tags=dapr,7 @13:13",
		`checks=[{"interval":"15s","name":"health of ${APP_ID}"}] @15:9`, "meta.A.B=shop @18:14", "none= @19:12",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || n.Component != "consul" || n.Version != "v1" || n.Place.Line != 7 {
		t.Errorf("%s %s on line %d\n%s\nwant\n%s", n.Component, n.Version, n.Place.Line, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNameResolutionAndTheEnvironment(t *testing.T) {
	t.Parallel()
	folder := write(t, map[string]string{"config.yaml": `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: c
spec:
  nameResolution:
    component: file
    configuration:
      a: "${CONSUL}"
      b: "${APP_ID}:${APP_PORT}"
      c: "${HOST_ADDRESS} ${OTHER}"
`})
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"CONSUL": "10.0.0.9", "APP_PORT": "8080"}[name]
		return v, ok
	}
	set, problems := Load(Options{Configs: []string{filepath.Join(folder, "config.yaml")}, Env: env})
	var got []string
	for _, it := range set.Configuration.Names.Metadata {
		got = append(got, it.Value)
	}
	if want := "10.0.0.9|${APP_ID}:8080|${HOST_ADDRESS} "; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", strings.Join(got, "|"), want)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "OTHER") {
		t.Errorf("problems: %v", problems)
	}
}
