package azure

import (
	"strings"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// The account that every emulator has; its key is public.
const (
	emulatorName = "devstoreaccount1"
	emulatorKey  = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// ParseConnection reads a connection string, as Azure's portal shows it, for one
// service. Kind Invalid; the error shows nothing of it.
func ParseConnection(text string, service Service) (Account, error) {
	parts := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return Account{}, fault.New(fault.Invalid, "read connection string: a part has no =")
		}
		parts[strings.ToLower(name)] = value
	}
	if strings.EqualFold(parts["usedevelopmentstorage"], "true") {
		port := map[Service]string{Blob: "10000", Table: "10002"}[service]
		return Account{Name: emulatorName, Key: component.NewSecret(emulatorKey), Endpoint: "http://127.0.0.1:" + port + "/" + emulatorName}, nil
	}
	a := Account{Name: parts["accountname"], Key: component.NewSecret(parts["accountkey"]), Endpoint: parts[string(service)+"endpoint"]}
	if a.Name == "" || a.Key.IsZero() {
		return Account{}, fault.New(fault.Invalid, "read connection string: AccountName and AccountKey must be in it; signatures (SAS) are not supported")
	}
	if suffix := parts["endpointsuffix"]; a.Endpoint == "" && suffix != "" {
		scheme := parts["defaultendpointsprotocol"]
		if scheme == "" {
			scheme = "https"
		}
		a.Endpoint = scheme + "://" + a.Name + "." + string(service) + "." + suffix
	}
	return a, nil
}
