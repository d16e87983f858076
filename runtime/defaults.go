package runtime

import (
	"path/filepath"

	"github.com/penstock-io/penstock/config"
)

// defaultBus is the broker that is there when nothing is configured: durable
// on this machine, in the data folder.
const defaultBus = "pubsub"

// builtIn is where messages say that the default broker is configured.
const builtIn = "the built-in default"

// withDefaults adds the default broker to a configuration without any
// component.
func withDefaults(set *config.Set, dataDir string) *config.Set {
	if len(set.Components) > 0 {
		return set
	}
	out := *set
	out.Components = []config.Component{{
		Name: defaultBus, Type: "pubsub.sqlite", Version: "v1",
		Metadata: []config.Item{{Name: "connectionString", Value: filepath.Join(dataDir, "pubsub.db")}},
		Place:    config.Place{File: builtIn},
	}}
	return &out
}
