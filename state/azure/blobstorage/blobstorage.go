// Package blobstorage is the state store "state.azure.blobstorage": values in
// blobs of an Azure Storage account.
//
// It is opened through [Component]. A blob has the key for its name, as in
// version v2 of Dapr's component; what cannot be the name of a blob is written in
// a form of its own.
//
// Promises: a change is done when the service has it, and every later read sees
// it. The ETag is the blob's.
package blobstorage

import (
	"context"
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

// Component is "state.azure.blobstorage", version v2.
var Component = state.Define("azure.blobstorage", component.About{
	Summary: "Values in blobs of Azure Storage",
	Ack:     "A change is done when the service has it",
	Limits:  "5000 MiB for a blob, as the service says; values are held in memory. No time to live: use a rule of the account. Keys are one request each, at most 100 side by side",
	Scale:   "Any number of processes share a container",
	Dapr: "Version v2 alone: v1 leaves the app's prefix out of a blob's name, so that apps read each other's state. Same blobs, but keys that cannot be the name of one, which Dapr cannot save, are kept in an escaped form. " +
		"Requests are signed with the account's key: there is no Microsoft Entra ID yet, and its options are refused as unknown. Request metadata is not written to blobs; retries are the policy's",
	Versions: []string{"v2"},
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.azure.blobstorage
  version: v2
  metadata:
    - name: accountName
      value: myaccount
    - name: accountKey
      secretKeyRef: {name: AZURE_STORAGE_KEY, key: AZURE_STORAGE_KEY}
    - name: containerName
      value: state
auth:
  secretStore: env
`,
}, open)

type options struct {
	Connection  component.Secret  `meta:"connectionString" doc:"Connection string of the account, with its key; stands for accountName, accountKey and endpoint."`
	AccountName string            `meta:"accountName" alias:"storageAccount,storageAccountName" doc:"Name of the account."`
	AccountKey  component.Secret  `meta:"accountKey" alias:"accessKey,storageAccessKey,storageAccountKey" doc:"Key of the account."`
	Container   string            `meta:"containerName,required" alias:"container,storageAccountContainer" doc:"The container; it is made unless disableEntityManagement is set."`
	Prefix      string            `meta:"prefix" doc:"Folder of the container to keep the blobs in."`
	Endpoint    string            `meta:"endpoint" alias:"storageEndpoint,storageAccountEndpoint" doc:"Address of the service without the account, for emulators and private endpoints." example:"http://127.0.0.1:10000"`
	Public      string            `meta:"publicAccessLevel" enum:"none|blob|container" default:"none" doc:"Who may read the blobs of a container that is made without a key."`
	Disable     bool              `meta:"disableEntityManagement" doc:"Does not make the container."`
	Retries     component.Ignored `meta:"retryCount" alias:"getBlobRetryCount" doc:"Retries are the policy's."`
}

var containerName = regexp.MustCompile(`^(\$root|[a-z0-9](-?[a-z0-9])+)$`)

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	if !containerName.MatchString(o.Container) || len(o.Container) < 3 || len(o.Container) > 63 {
		errs = append(errs, component.OptionErrorf("containerName", "%q is not 3 to 63 lower-case letters, digits and single hyphens", o.Container))
	}
	if o.Prefix != "" && !legal(o.Prefix) {
		errs = append(errs, component.OptionErrorf("prefix", "%q cannot begin the name of a blob", o.Prefix))
	}
	if o.Connection.IsZero() && (o.AccountName == "" || o.AccountKey.IsZero()) {
		errs = append(errs, component.OptionErrorf("accountKey", "accountName and accountKey are needed, or connectionString"))
		return errors.Join(errs...)
	}
	account, err := o.account()
	if err == nil {
		_, err = azure.New(azure.Blob, account)
	}
	if err != nil {
		name := "accountKey"
		if !o.Connection.IsZero() {
			name = "connectionString"
		}
		errs = append(errs, component.OptionErrorf(name, "%w", err))
	}
	return errors.Join(errs...)
}

func (o options) account() (azure.Account, error) {
	if !o.Connection.IsZero() {
		return azure.ParseConnection(o.Connection.Reveal(), azure.Blob)
	}
	a := azure.Account{Name: o.AccountName, Key: o.AccountKey}
	if o.Endpoint != "" {
		a.Endpoint = strings.TrimRight(o.Endpoint, "/")
		if u, err := url.Parse(a.Endpoint); err != nil || !strings.HasPrefix(u.Host, o.AccountName+".") {
			a.Endpoint += "/" + o.AccountName
		}
	}
	return a, nil
}

// parallel is how many changes are under way at once.
const parallel = 32

type store struct {
	c    *azure.Client
	path string // of the container and the prefix, escaped, with a slash at the end
}

func open(ctx context.Context, _ component.Env, o options) (state.Driver, error) {
	account, err := o.account()
	if err != nil {
		return nil, err
	}
	c, err := azure.New(azure.Blob, account)
	if err != nil {
		return nil, err
	}
	s := &store{c: c, path: "/" + o.Container + "/"}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		s.path += escaped(p) + "/"
	}
	if err := s.prepare(ctx, o); err != nil {
		c.Close()
		return nil, fault.Wrap(err, "open container %s", o.Container)
	}
	return s, nil
}

// prepare makes the container, or looks whether it is there.
func (s *store) prepare(ctx context.Context, o options) error {
	r := azure.Request{Method: http.MethodPut, Path: "/" + o.Container, Query: url.Values{"restype": {"container"}}, Header: http.Header{}}
	switch {
	case o.Disable:
		r.Method = http.MethodGet
	case o.Public != "none":
		r.Header.Set("x-ms-blob-public-access", o.Public)
	}
	_, err := s.c.Do(ctx, r)
	if code := azure.Code(err); code == "ContainerAlreadyExists" || code == "ResourceAlreadyExists" {
		return nil
	}
	return err
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true} }

// Get implements state.Driver.
func (s *store) Get(ctx context.Context, keys []string, r state.Read) ([]state.Item, error) {
	return state.GetEach(ctx, keys, r, func(ctx context.Context, key string) (state.Item, error) {
		res, err := s.c.Do(ctx, azure.Request{Method: http.MethodGet, Path: s.blob(key)})
		if azure.Code(err) == notFound {
			return state.Item{}, nil
		}
		if err != nil {
			return state.Item{}, fault.Wrap(err, "read blob")
		}
		return state.Item{Found: true, Value: res.Body, ETag: res.Header.Get("ETag")}, nil
	})
}

const notFound = "BlobNotFound"

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, s.change)
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	r := azure.Request{Method: http.MethodPut, Path: s.blob(c.Key), Header: http.Header{}}
	switch {
	case c.ETag != nil:
		if strings.ContainsFunc(*c.ETag, func(r rune) bool { return r < ' ' || r > '~' }) || *c.ETag == "" || *c.ETag == "*" {
			return fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		r.Header.Set("If-Match", *c.ETag)
	case c.FirstWrite && !c.Delete:
		r.Header.Set("If-None-Match", "*")
	}
	if c.Delete {
		r.Method = http.MethodDelete
	} else {
		r.Body = c.Value
		r.Header.Set("x-ms-blob-type", "BlockBlob")
		r.Header.Set("Content-Type", "application/json")
		if c.Binary {
			r.Header.Set("Content-Type", "application/octet-stream")
		}
	}
	_, err := s.c.Do(ctx, r)
	switch code := azure.Code(err); {
	case code == notFound && c.ETag == nil:
		return nil
	case code == notFound:
		return fault.As(fault.Conflict, err)
	case c.Delete:
		return fault.Wrap(err, "delete blob")
	}
	return fault.Wrap(err, "save blob")
}

// blob is the path of a key's blob.
func (s *store) blob(key string) string {
	if !legal(key) || key[0] == '=' {
		key = state.Escaped(key, "-_|")
	}
	return s.path + escaped(key)
}

// escaped escapes what stands between the slashes of a name.
func escaped(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// legal tells whether a text can be the name of a blob, unchanged on every way
// there: nothing that paths are cleaned of, and nothing that the service refuses.
func legal(text string) bool {
	const most = 1024
	if text == "" || utf8.RuneCountInString(text) > most || !utf8.ValidString(text) {
		return false
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "" || strings.HasSuffix(part, ".") {
			return false
		}
	}
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\\' || r >= 0xfff0 }) < 0
}

// Close implements component.Driver.
func (s *store) Close(context.Context) error {
	s.c.Close()
	return nil
}
