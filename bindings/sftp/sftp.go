// Package sftp is the binding "bindings.sftp": it keeps files on an SFTP server,
// and takes the files that appear in a folder there.
//
// Configure it with an address, a user and a rootPath. Operations are create,
// get, delete and list, as Dapr's; metadata fileName names a file or a folder
// below rootPath. With inbox it is an input too: each file of that folder is one
// event. A file is taken by moving it into a folder of this process's own, so that
// of several processes one has it, and is moved on or deleted when it is done.
//
// Promises: no operation leaves rootPath; create shows a name with the whole
// file or not at all. Delivery is at least once: a file that is not done goes back
// with Close, and others take what a process that died has left after
// claimTimeout. Files that still change are left alone.
//
// Bounds: 64 files taken, 8 read at once, 64 MiB of contents (or one larger
// file), 100000 names in the folder.
package sftp

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/sftp"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	move       = "move"
	del        = "delete"
	asBody     = "body"
	asPath     = "path"
	claimsDir  = ".penstock-claims"
	minTimeout = time.Second
)

// Component is listed in package all.
var Component = bindings.Define("sftp", component.About{
	Summary: "Keeps files on an SFTP server, and takes the files that appear in a folder there",
	Ack: "A file that came in is moved to doneDir or deleted. create returns when the server has the whole file under its name, " +
		"on its disk where it can say so; delete when the name is gone",
	Order: "Files are begun in the order of their modification times; a file that fails is overtaken by others",
	Limits: "64 files taken, 8 read at once, 64 MiB of contents (or one larger file), 100000 names in the folder; files of maxFileSize, " +
		"names of 1024 bytes with parts of 255",
	Scale: "Processes may read one folder: each file goes to one of them, taken with a rename. When one dies, others take what it had after claimTimeout, by the server's clock",
	Dapr: "The input is Penstock's own. A name that leads out of rootPath is refused, and so is a rootPath in the metadata of a request; a file appears whole, " +
		"under its name, instead of growing; create without fileName makes up a name; an option fileName is used where a request has none",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: supplier
spec:
  type: bindings.sftp
  version: v1
  metadata:
    - name: address
      value: files.example.com:22
    - name: username
      value: shop
    - name: password
      value: secret
    - name: knownHostsFile
      value: /etc/ssh/ssh_known_hosts
    - name: rootPath
      value: /upload
    - name: inbox
      value: in
    - name: pattern
      value: "*.csv"
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

type options struct {
	client.Options
	RootPath     string         `meta:"rootPath,required" doc:"Folder on the server that everything happens in; made when it does not exist. A path without a leading slash is below the user's home." example:"/upload"`
	FileName     string         `meta:"fileName" doc:"File for requests to create, get and delete that name none."`
	MaxFileSize  component.Size `meta:"maxFileSize" doc:"Largest file that get returns and that is delivered with its contents; a larger one goes to failedDir." default:"100Mi"`
	Inbox        string         `meta:"inbox" doc:"Folder within rootPath to take files from, . for rootPath itself; made when it does not exist. Nothing is read when empty. Penstock's own." example:"in"`
	Pattern      string         `meta:"pattern" doc:"Which names to take, with *, ? and [a-z]. Names that begin with a dot are never taken." default:"*" example:"*.csv"`
	Unfinished   []string       `meta:"unfinished" doc:"Ends of names of files that are being written, in any case." default:".tmp,.part,.filepart"`
	StableFor    time.Duration  `meta:"stableFor" doc:"How long size and time of a file must not change before it is taken. Servers tell whole seconds." default:"5s"`
	Interval     time.Duration  `meta:"interval" doc:"How often the folder is looked through." default:"10s"`
	Deliver      string         `meta:"deliver" doc:"Whether the event's data are the contents of the file, or tell where it is: fileName, fit for get while it is not done, name and size." enum:"body|path" default:"body"`
	After        string         `meta:"after" doc:"What happens to a file that was delivered: move to doneDir, or delete." enum:"move|delete" default:"move"`
	DoneDir      string         `meta:"doneDir" doc:"Folder within inbox for files that were delivered." default:".done"`
	FailedDir    string         `meta:"failedDir" doc:"Folder within inbox for files that cannot be delivered." default:".failed"`
	ClaimTimeout time.Duration  `meta:"claimTimeout" doc:"How long nothing must be heard of a process before others take the files that it had." default:"1m"`
	ContentType  string         `meta:"contentType" doc:"Content type of the data; told by the contents when empty." example:"text/csv"`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.MaxFileSize < 1 || o.MaxFileSize > 1<<30 {
		errs = append(errs, component.OptionErrorf("maxFileSize", "must be between 1 and 1Gi"))
	}
	if o.FileName != "" && checkName(o.FileName) != nil {
		errs = append(errs, component.OptionErrorf("fileName", "%q is not a path within rootPath", o.FileName))
	}
	if o.Inbox != "" && o.Inbox != "." && checkName(o.Inbox) != nil {
		errs = append(errs, component.OptionErrorf("inbox", "%q is not a folder within rootPath", o.Inbox))
	}
	if _, err := path.Match(o.Pattern, "x"); err != nil || strings.Contains(o.Pattern, "/") {
		errs = append(errs, component.OptionErrorf("pattern", "%q is not a pattern for names, such as *.csv", o.Pattern))
	}
	for _, dir := range [][2]string{{"doneDir", o.DoneDir}, {"failedDir", o.FailedDir}} {
		if checkName(dir[1]) != nil || path.Clean(dir[1]) == "." || strings.HasPrefix(path.Clean(dir[1]), claimsDir) {
			errs = append(errs, component.OptionErrorf(dir[0], "%q is not a folder within inbox", dir[1]))
		}
	}
	if o.StableFor < 0 || o.StableFor > time.Hour {
		errs = append(errs, component.OptionErrorf("stableFor", "%s is not between 0s and 1h", o.StableFor))
	}
	if o.Interval < 10*time.Millisecond {
		errs = append(errs, component.OptionErrorf("interval", "%s is shorter than 10ms", o.Interval))
	}
	if o.ClaimTimeout < minTimeout {
		errs = append(errs, component.OptionErrorf("claimTimeout", "%s is shorter than %s", o.ClaimTimeout, minTimeout))
	}
	return errors.Join(errs...)
}

// openTimeout is for finding the folders.
const openTimeout = 30 * time.Second

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	finding, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	root, err := client.Do(finding, c, func(s *sftp.Client) (string, error) { return findRoot(s, o.RootPath, o.Inbox) })
	if err != nil {
		_ = c.Close(finding) // the first error says more
		return nil, fault.Wrap(err, "find folder %q", o.RootPath)
	}
	out := &output{client: c, root: root, fileName: o.FileName, maxSize: int64(o.MaxFileSize)}
	if o.Inbox == "" {
		return out, nil
	}
	return openInbox(ctx, env, o, out), nil
}

// findRoot makes the folders that do not exist and returns where the root really
// is.
func findRoot(s *sftp.Client, root, inbox string) (string, error) {
	if err := s.MkdirAll(root); err != nil {
		return "", err
	}
	real, err := s.RealPath(root)
	if err != nil || inbox == "" {
		return real, err
	}
	return real, makeFolder(s, real, path.Join(real, inbox))
}
