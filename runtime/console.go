package runtime

import (
	"context"

	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/console"
)

// maxConsoleHeader bounds the headers of requests to the console, in bytes: a
// browser sends it the cookies of whatever else is developed on this machine.
const maxConsoleHeader = 32 << 10

// serveConsole serves the page for people. It asks the API in their name: without
// the app's token, and whatever the Configuration allows the app.
func (r *Runtime) serveConsole(ctx context.Context, settings apihttp.Options, options apihttp.ServerOptions) error {
	settings.Tokens, settings.Pipeline, settings.Metrics, settings.Operator = nil, nil, nil, true
	options.ReadBuffer = maxConsoleHeader
	page, err := console.New(apihttp.New(r.api, settings), console.Options{
		Token: r.o.ConsoleToken, AllowedHosts: r.o.AllowedHosts, AppID: r.o.AppID, Version: r.o.Version,
		WriteState: r.o.ConsoleWriteState, Check: r.draft, Ending: r.draining, Logger: r.log,
	})
	if err != nil {
		return err
	}
	return apihttp.NewServer(page, options).Run(ctx, r.o.Console...)
}
