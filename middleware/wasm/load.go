package wasm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxModule   = 64 << 20
	loadTimeout = 30 * time.Second
)

// source returns the path of the file that the module is in, or else its address.
func (o options) source() (path, address string, err error) {
	if path, found := strings.CutPrefix(o.URL, "file://"); found && path != "" {
		return path, "", nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "", "", component.OptionErrorf("url", "is none with file://, http:// or https://, without a user")
	}
	return "", o.URL, nil
}

// load returns the bytes of the module.
func (o options) load(ctx context.Context) ([]byte, error) {
	path, address, err := o.source()
	if err != nil {
		return nil, err
	}
	if address != "" {
		return fetch(ctx, address)
	}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "open module: there is no file %q", path)
		}
		return nil, fault.New(fault.Invalid, "open module: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "read module: %w", err)
	case len(data) > maxModule:
		return nil, fault.New(fault.Invalid, "read module: %q has more than %d bytes", path, maxModule)
	}
	return data, nil
}

func fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	transport := client.NewTransport(client.Options{UseProxy: true})
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if fault.KindOf(err) == fault.Internal {
			err = fault.As(fault.Unavailable, err)
		}
		return nil, fault.Wrap(err, "fetch module")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Unavailable, "fetch module: %s answered %d", req.URL.Host, resp.StatusCode)
	}
	data, err := client.ReadBody(resp.Body, maxModule)
	return data, fault.Wrap(err, "fetch module")
}
