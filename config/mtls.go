package config

// MTLS is spec.mtls. What it says to Dapr's Sentry alone is not in it.
type MTLS struct {
	// Enabled turns mutual TLS between instances on.
	Enabled bool
	// SentryAddress is where Dapr's Sentry issues identities, HOST:PORT.
	SentryAddress string
	// ControlPlaneTrustDomain is that of Sentry itself.
	ControlPlaneTrustDomain string
	Place                   Place
}

// mtls reads spec.mtls.
func (r *reader) mtls(spec *fields) MTLS {
	f := spec.table("mtls")
	if f.n == nil {
		return MTLS{}
	}
	m := MTLS{
		Enabled: f.bool("enabled"), SentryAddress: f.text("sentryAddress"), ControlPlaneTrustDomain: f.text("controlPlaneTrustDomain"), Place: f.at,
	}
	f.duration("workloadCertTTL", 0)
	f.duration("allowedClockSkew", 0)
	f.skip("tokenValidators")
	f.done()
	return m
}
