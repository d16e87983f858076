package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBadRunFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/run/bad/*.yaml")
	if err != nil || len(files) < 19 {
		t.Fatal(len(files), err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			_, problems := LoadRunFile(file)
			if len(problems) == 0 {
				t.Fatal("no problem found")
			}
			text := strings.ReplaceAll(problems.Error(), here, "HERE") + "\n"
			if errs, _ := problems.Split(false); len(errs) == 0 {
				text = "warning: " + text
			}
			wanted(t, strings.TrimSuffix(file, ".yaml")+".want", text)
		})
	}
}

func TestRunFile(t *testing.T) {
	t.Parallel()
	got, problems := LoadRunFile("testdata/run/good")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	dir, err := filepath.Abs("testdata/run/good")
	if err != nil {
		t.Fatal(err)
	}
	in := func(path ...string) string { return filepath.Join(append([]string{dir}, path...)...) }
	common := map[string]string{"DEBUG": "true", "LEVEL": "1e3", "EMPTY": "", "QUOTED": "yes"}
	want := RunFile{
		File:   in("dapr.yaml"),
		Unused: []string{"placementHostAddress", "runtimePath", "containerImage", "createService"},
		Apps: []RunApp{
			{
				ID: "shop", Dir: in("shop"), Command: []string{"node", "app.js", "7"}, Port: 8080, HTTPPort: 3510,
				Env:       map[string]string{"DEBUG": "no", "LEVEL": "1e3", "EMPTY": "", "QUOTED": "yes", "OWN": "x"},
				Resources: []string{in("shop", ".dapr", "resources")}, Config: in("shop", ".dapr", "config.yaml"),
				AppLog: LogTarget{Console: true}, Log: LogTarget{File: true},
				Flags: []RunFlag{
					{"log-level", "error"},
					{"enable-api-logging", "false"},
					{"metrics-port", "9091"},
					{"app-protocol", "http"},
				},
			},
			{
				ID: "backend", Dir: in("back"), Env: common,
				Resources: []string{in("back", "conf"), in("plain"), in("common")}, Config: in("common.yaml"),
				AppLog: LogTarget{File: true}, Log: LogTarget{File: true, Console: true},
				Flags: []RunFlag{
					{"max-body-size", "8Mi"},
					{"enable-app-health-check", "true"},
					{"app-protocol", "http"},
					{"log-level", "debug"},
					{"enable-api-logging", "true"},
				},
			},
			{
				ID: "plain", Dir: in("plain"), Env: common,
				Resources: []string{in("common")}, Config: in("common.yaml"),
				AppLog: LogTarget{Console: true}, Log: LogTarget{File: true},
				Flags: []RunFlag{
					{"app-protocol", "http"},
					{"log-level", "debug"},
					{"enable-api-logging", "true"},
				},
			},
		},
	}
	if diff := cmp.Diff(want, got, anywhere); diff != "" {
		t.Error(diff)
	}
}

func TestRunFileIsMissing(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"testdata/run/none.yaml": "testdata/run/none.yaml: read file: no such file or directory",
		"testdata/run":           "testdata/run/dapr.yaml: read file: no such file or directory",
	} {
		if _, problems := LoadRunFile(path); problems.Error() != want {
			t.Errorf("%s: %v", path, problems)
		}
	}
}
