// Package tablestorage is the state store "state.azure.tablestorage": values in a
// table of an Azure Storage account, or of Cosmos DB.
//
// It is opened through [Component]. An entity is laid out as by Dapr's component:
// what stands before || is the partition key, the rest the row key, and the
// property Value holds the value.
//
// Promises: a change is done when the service has it, and every later read sees
// it. The ETag is the entity's.
package tablestorage

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/client/azure"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.azure.tablestorage".
var Component = state.Define("azure.tablestorage", component.About{
	Summary: "Values in a table of Azure Storage or Cosmos DB",
	Ack:     "A change is done when the service has it",
	Limits:  "32 Ki characters of text or 64 KiB of bytes for a value, 512 characters for a key. No time to live. Keys are one request each, at most 100 side by side",
	Scale:   "Any number of processes share a table",
	Dapr: "Same entities. Keys with characters that Azure does not take, which Dapr cannot save, are kept in an escaped form, and bytes that are no text as bytes. A save is one request instead of two. " +
		"Requests are signed with the account's key: there is no Microsoft Entra ID yet, and its options are refused as unknown",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.azure.tablestorage
  version: v1
  metadata:
    - name: accountName
      value: myaccount
    - name: accountKey
      secretKeyRef: {name: AZURE_STORAGE_KEY, key: AZURE_STORAGE_KEY}
    - name: tableName
      value: state
auth:
  secretStore: env
`,
}, open)

type options struct {
	AccountName string           `meta:"accountName,required" alias:"storageAccount,storageAccountName" doc:"Name of the account."`
	AccountKey  component.Secret `meta:"accountKey,required" alias:"accessKey,storageAccessKey,storageAccountKey" doc:"Key of the account."`
	Table       string           `meta:"tableName,required" alias:"table,storageAccountTable" doc:"The table; it is made unless skipCreateTable is set."`
	Cosmos      bool             `meta:"cosmosDbMode" doc:"The account is one of Cosmos DB."`
	ServiceURL  string           `meta:"serviceURL" doc:"Address of the service with the account, for emulators and private endpoints; Azure's own when empty." example:"http://127.0.0.1:10002/devstoreaccount1"`
	SkipCreate  bool             `meta:"skipCreateTable" doc:"Does not make the table."`
}

var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]+$`)

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	if !tableName.MatchString(o.Table) || len(o.Table) < 3 || len(o.Table) > 63 {
		errs = append(errs, component.OptionErrorf("tableName", "%q is not 3 to 63 letters and digits, a letter first", o.Table))
	}
	if _, err := azure.New(azure.Table, o.account()); err != nil {
		errs = append(errs, component.OptionErrorf("accountKey", "%w", err))
	}
	return errors.Join(errs...)
}

func (o options) account() azure.Account {
	a := azure.Account{Name: o.AccountName, Key: o.AccountKey, Endpoint: o.ServiceURL}
	if a.Endpoint == "" && o.Cosmos {
		a.Endpoint = "https://" + o.AccountName + ".table.cosmos.azure.com"
	}
	return a
}

// parallel is how many changes are under way at once.
const parallel = 32

type store struct {
	c      *azure.Client
	table  string
	cosmos bool
}

func open(ctx context.Context, _ component.Env, o options) (state.Driver, error) {
	c, err := azure.New(azure.Table, o.account())
	if err != nil {
		return nil, err
	}
	s := &store{c: c, table: o.Table, cosmos: o.Cosmos}
	if err := s.prepare(ctx, o.SkipCreate); err != nil {
		c.Close()
		return nil, fault.Wrap(err, "open table %s", o.Table)
	}
	return s, nil
}

// prepare makes the table, or looks whether it is there.
func (s *store) prepare(ctx context.Context, skip bool) error {
	if skip {
		_, err := s.do(ctx, azure.Request{Method: http.MethodGet, Path: "/" + s.table + "()", Query: url.Values{"$top": {"1"}}})
		return err
	}
	body, err := json.Marshal(map[string]string{"TableName": s.table})
	if err != nil {
		return err
	}
	_, err = s.do(ctx, azure.Request{Method: http.MethodPost, Path: "/Tables", Body: body})
	if azure.Code(err) == "TableAlreadyExists" {
		return nil
	}
	return err
}

// do sends a request in the service's JSON.
func (s *store) do(ctx context.Context, r azure.Request) (*azure.Response, error) {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Accept", "application/json;odata=minimalmetadata")
	r.Header.Set("DataServiceVersion", "3.0")
	if r.Body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Prefer", "return-no-content")
	}
	return s.c.Do(ctx, r)
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true} }

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	return state.GetEach(ctx, keys, r, func(ctx context.Context, key string) (state.Item, error) {
		res, err := s.do(ctx, azure.Request{Method: http.MethodGet, Path: s.entity(key)})
		if missing(err) {
			return state.Item{}, nil
		}
		if err != nil {
			return state.Item{}, fault.Wrap(err, "read entity")
		}
		return item(res)
	})
}

// missing tells whether an error says that the entity is not there.
func missing(err error) bool {
	code := azure.Code(err)
	return code == "ResourceNotFound" || code == "EntityNotFound"
}

// Properties of an entity.
const (
	partitionKey = "PartitionKey"
	rowKey       = "RowKey"
	property     = "Value"
	propertyType = "Value@odata.type"
	binaryType   = "Edm.Binary"
)

// item reads an entity. One without a value was not written by a state store.
func item(res *azure.Response) (state.Item, error) {
	var e struct {
		Value *string `json:"Value"`
		Type  string  `json:"Value@odata.type"`
		ETag  string  `json:"odata.etag"`
	}
	if err := json.Unmarshal(res.Body, &e); err != nil {
		return state.Item{}, fault.New(fault.Invalid, "read entity: the property %s is no text", property)
	}
	if e.Value == nil {
		return state.Item{}, nil
	}
	it := state.Item{Found: true, Value: []byte(*e.Value), ETag: e.ETag}
	if it.ETag == "" {
		it.ETag = res.Header.Get("ETag")
	}
	if e.Type == binaryType {
		var err error
		if it.Value, err = base64.StdEncoding.DecodeString(*e.Value); err != nil {
			return state.Item{}, fault.New(fault.Invalid, "read entity: the property %s is not base64", property)
		}
	}
	return it, nil
}

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, s.change)
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	r := azure.Request{Method: http.MethodPut, Path: s.entity(c.Key), Header: http.Header{}}
	switch {
	case c.ETag != nil:
		if strings.ContainsFunc(*c.ETag, func(r rune) bool { return r < ' ' || r > '~' }) || *c.ETag == "" || *c.ETag == "*" {
			return fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		r.Header.Set("If-Match", *c.ETag)
	case c.Delete:
		r.Header.Set("If-Match", "*")
	case c.FirstWrite:
		r.Method, r.Path = http.MethodPost, "/"+s.table
	}
	if c.Delete {
		r.Method = http.MethodDelete
	} else {
		var err error
		if r.Body, err = s.encode(c); err != nil {
			return err
		}
	}
	_, err := s.do(ctx, r)
	switch {
	case missing(err) && c.ETag == nil && c.Delete:
		return nil
	case missing(err) && c.ETag != nil:
		return fault.As(fault.Conflict, err)
	case c.Delete:
		return fault.Wrap(err, "delete entity")
	}
	return fault.Wrap(err, "save entity")
}

// encode makes the entity of a change.
func (s *store) encode(c *state.Change) ([]byte, error) {
	partition, row := s.keys(c.Key)
	e := map[string]string{partitionKey: partition, rowKey: row, property: string(c.Value)}
	if c.Binary && !utf8.Valid(c.Value) {
		e[property], e[propertyType] = base64.StdEncoding.EncodeToString(c.Value), binaryType
	}
	return json.Marshal(e)
}

// entity is the path of a key's entity.
func (s *store) entity(key string) string {
	partition, row := s.keys(key)
	quote := func(text string) string { return "'" + url.PathEscape(strings.ReplaceAll(text, "'", "''")) + "'" }
	return "/" + s.table + "(" + partitionKey + "=" + quote(partition) + "," + rowKey + "=" + quote(row) + ")"
}

// emptyRow stands for a row key of nothing in Cosmos DB.
const emptyRow = "_dapr_empty_row_key_value_"

// keys are the partition key and the row key of an item.
func (s *store) keys(key string) (partition, row string) {
	partition, row, prefixed := strings.Cut(key, "||")
	if !prefixed && s.cosmos {
		row = emptyRow
	}
	return part(partition), part(row)
}

// part is one half of a key, in our own form where Azure does not take it.
func part(text string) string {
	forbidden := func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || strings.ContainsRune(`/\#?%+`, r) }
	if strings.HasPrefix(text, "=") || !utf8.ValidString(text) || strings.ContainsFunc(text, forbidden) {
		return state.Escaped(text, "-_.:")
	}
	return text
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error {
	s.c.Close()
	return nil
}
