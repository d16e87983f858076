package api

import (
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// LogLevels returns the level of each part of the log, by name.
func (a *API) LogLevels() []telemetry.Level { return list(telemetry.LevelsOf(a.rt.Logger()).List()) }

// SetLogLevel changes the level of a part of the log until the process ends; an
// empty part is all of them. See [telemetry.Levels.Set].
func (a *API) SetLogLevel(part, level string) error {
	err := telemetry.LevelsOf(a.rt.Logger()).Set(part, level)
	switch {
	case err == nil:
		return nil
	case fault.KindOf(err) == fault.NotFound:
		return Errorf(LogPartNotFound, "%w", err)
	}
	return Errorf(BadRequest, "set log level: %w", err)
}
