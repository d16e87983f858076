package blobstorage

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

const key = "a2V5" // "key" in base64

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, good := range [][]config.Item{
		items("accountName", "a", "accountKey", key, "containerName", "abc"),
		items("storageAccount", "a", "storageAccessKey", key, "container", "a-b-c", "retryCount", "5", "publicAccessLevel", "blob", "prefix", "x/y"),
		items("connectionString", "AccountName=a;AccountKey="+key, "containerName", "$root"),
	} {
		if ps := Component.Check(good); len(ps) > 0 {
			t.Errorf("%v: %v", good, ps)
		}
	}
	for _, bad := range [][]config.Item{
		items("accountName", "a", "accountKey", key),
		items("accountName", "a", "accountKey", key, "containerName", "ABC"),
		items("accountName", "a", "accountKey", key, "containerName", "a--b"),
		items("accountName", "a", "accountKey", key, "containerName", "ab"),
		items("accountName", "a", "accountKey", "no key!", "containerName", "abc"),
		items("accountName", "a", "containerName", "abc"),
		items("accountName", "a", "accountKey", key, "containerName", "abc", "prefix", "a/../b"),
		items("accountName", "a", "accountKey", key, "containerName", "abc", "publicAccessLevel", "all"),
		items("accountName", "a", "accountKey", key, "containerName", "abc", "endpoint", "nowhere"),
		items("connectionString", "AccountName=a", "containerName", "abc"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		} else if strings.Contains(ps.Error(), "no key!") {
			t.Errorf("a message shows the key: %v", ps)
		}
	}
	if _, err := (component.List{Component}).Find("state.azure.blobstorage", "v1"); err == nil {
		t.Error("version 1 is found")
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"":                            "",
		"http://127.0.0.1:10000/":     "http://127.0.0.1:10000/acc",
		"https://acc.blob.x.example/": "https://acc.blob.x.example",
	} {
		a, err := (options{AccountName: "acc", Endpoint: endpoint}).account()
		if err != nil || a.Endpoint != want {
			t.Errorf("%q is %q, %v; want %q", endpoint, a.Endpoint, err, want)
		}
	}
}

func TestBlob(t *testing.T) {
	t.Parallel()
	s, seen := &store{path: "/c/"}, map[string]string{}
	for name, want := range map[string]string{
		"app||key":                  "/c/app%7C%7Ckey",
		"app||a/b c?d%é":            "/c/app%7C%7Ca/b%20c%3Fd%25%C3%A9",
		"app||a/../b":               "/c/=app%7C%7Ca=2f=2e=2e=2fb",
		"app||a//b":                 "/c/=app%7C%7Ca=2f=2fb",
		"app||a/":                   "/c/=app%7C%7Ca=2f",
		"app||a.":                   "/c/=app%7C%7Ca=2e",
		`app||a\b`:                  "/c/=app%7C%7Ca=5cb",
		"=a":                        "/c/==3da",
		"app||\xff":                 "/c/=app%7C%7C=ff",
		"app||" + string(rune(0x9)): "/c/=app%7C%7C=09",
	} {
		got := s.blob(name)
		if got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
		if seen[got] != "" {
			t.Errorf("%q and %q are one blob", name, seen[got])
		}
		seen[got] = name
	}
}
