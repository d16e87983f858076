package tablestorage

import (
	"net/http"
	"testing"

	"github.com/penstock-io/penstock/client/azure"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
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
	if ps := Component.Check(items("accountName", "a", "accountKey", key, "tableName", "Abc", "cosmosDbMode", "true", "skipCreateTable", "true")); len(ps) > 0 {
		t.Error(ps)
	}
	for _, bad := range [][]config.Item{
		items("accountName", "a", "accountKey", key),
		items("accountName", "a", "tableName", "abc"),
		items("accountName", "a", "accountKey", "no key!", "tableName", "abc"),
		items("accountName", "a", "accountKey", key, "tableName", "a-b"),
		items("accountName", "a", "accountKey", key, "tableName", "1ab"),
		items("accountName", "a", "accountKey", key, "tableName", "abc", "serviceURL", "nowhere"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
	for o, want := range map[options]string{
		{AccountName: "a"}:                         "",
		{AccountName: "a", Cosmos: true}:           "https://a.table.cosmos.azure.com",
		{AccountName: "a", ServiceURL: "http://h"}: "http://h",
	} {
		if got := o.account().Endpoint; got != want {
			t.Errorf("%+v is %q, want %q", o, got, want)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"app||key":      {"app", "key"},
		"app||a b'é":    {"app", "a b'é"},
		"key":           {"key", ""},
		"app||a/b":      {"app", "=a=2fb"},
		`app||a\b#?%+=`: {"app", "=a=5cb=23=3f=25=2b=3d"},
		"app||=a":       {"app", "==3da"},
		"a/b||\tc":      {"=a=2fb", "==09c"},
		"app||\xff":     {"app", "==ff"},
		"a||b||c":       {"a", "b||c"},
	} {
		if p, r := (&store{}).keys(name); p != want[0] || r != want[1] {
			t.Errorf("%q is %q and %q, want %q", name, p, r, want)
		}
	}
	if _, r := (&store{cosmos: true}).keys("key"); r != "_dapr_empty_row_key_value_" {
		t.Errorf("without a prefix the row key in Cosmos DB is %q", r)
	}
	if got := (&store{table: "t"}).entity("app||a'b c"); got != "/t(PartitionKey='app',RowKey='a%27%27b%20c')" {
		t.Errorf("the path is %s", got)
	}
}

func TestItem(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]state.Item{
		`{"Value":"{\"a\":1}","odata.etag":"W/\"1\""}`:     {Found: true, Value: []byte(`{"a":1}`), ETag: `W/"1"`},
		`{"Value":"AP8=","Value@odata.type":"Edm.Binary"}`: {Found: true, Value: []byte{0, 255}, ETag: "of the header"},
		`{"Other":"x"}`: {},
	} {
		got, err := item(&azure.Response{Header: http.Header{"Etag": {"of the header"}}, Body: []byte(body)})
		if err != nil || got.Found != want.Found || string(got.Value) != string(want.Value) || got.ETag != want.ETag {
			t.Errorf("%s: %+v, %v; want %+v", body, got, err, want)
		}
	}
	for _, bad := range []string{`{"Value":1}`, `{"Value":"%","Value@odata.type":"Edm.Binary"}`, `no JSON`} {
		if _, err := item(&azure.Response{Body: []byte(bad)}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want kind invalid", bad, err)
		}
	}
}
