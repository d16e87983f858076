package runtime

import (
	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	apphttp "github.com/penstock-io/penstock/app/http"
	"github.com/penstock-io/penstock/telemetry"
)

// connectApp makes the channel to the app, when there is one.
func (r *Runtime) connectApp() error {
	a := r.o.App
	if a.Port == 0 {
		return nil
	}
	connect := r.connectHTTP
	if a.Protocol == "grpc" || a.Protocol == "grpcs" {
		connect = r.connectGRPC
	}
	if err := connect(); err != nil {
		return err
	}
	r.app = app.New(app.Options{
		Channel: r.client, MaxConcurrency: a.MaxConcurrency, Tracer: r.tracer, Logger: telemetry.Part(r.log, "app"),
		Health: app.HealthOptions{
			Enabled: a.HealthCheck, Interval: a.HealthInterval, Timeout: a.HealthTimeout, Threshold: a.HealthThreshold,
		},
	})
	return nil
}

func (r *Runtime) connectHTTP() error {
	a := r.o.App
	client, err := apphttp.New(apphttp.Options{
		Port: a.Port, Address: a.Address, Protocol: a.Protocol, Token: a.Token, MaxConcurrency: a.MaxConcurrency,
		MaxBody: r.o.MaxBody, HealthPath: a.HealthPath, ProbeTimeout: a.ProbeTimeout, Disable: a.Disable, Pipeline: r.toApp, Metrics: r.metrics,
		Logger: telemetry.Part(r.log, "app"),
	})
	if err != nil {
		return err
	}
	r.client, r.hangUp = client, client.Close
	return nil
}

func (r *Runtime) connectGRPC() error {
	a := r.o.App
	client, err := appgrpc.New(appgrpc.Options{
		Port: a.Port, Address: a.Address, Protocol: a.Protocol, Token: a.Token,
		MaxBody: r.o.MaxBody, ProbeTimeout: a.ProbeTimeout, Disable: a.Disable, Metrics: r.metrics, Logger: telemetry.Part(r.log, "app"),
	})
	if err != nil {
		return err
	}
	r.client, r.hangUp = client, client.Close
	return nil
}
