package component

import (
	"context"
	"fmt"
	"log/slog"
)

// discreet returns a logger that writes none of the secrets: a component, or the
// driver behind it, may say anything about its connection.
func discreet(log *slog.Logger, secrets []string) *slog.Logger {
	if log == nil || len(secrets) == 0 {
		return log
	}
	return slog.New(&discretion{log.Handler(), secrets})
}

// discretion implements slog.Handler. It looks at lines that are written, not at
// those below the level.
type discretion struct {
	to      slog.Handler
	secrets []string
}

// Enabled implements slog.Handler.
func (h *discretion) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *discretion) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, hide(h.secrets, r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.clean(a))
		return true
	})
	return h.to.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (h *discretion) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.clean(a)
	}
	return &discretion{h.to.WithAttrs(clean), h.secrets}
}

// WithGroup implements slog.Handler.
func (h *discretion) WithGroup(name string) slog.Handler {
	return &discretion{h.to.WithGroup(name), h.secrets}
}

// clean returns the attribute without secrets. One that has none stays what it
// is; another becomes a text.
func (h *discretion) clean(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		inner := make([]slog.Attr, 0, len(v.Group()))
		for _, g := range v.Group() {
			inner = append(inner, h.clean(g))
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(inner...)}
	}
	if v.Kind() != slog.KindString && v.Kind() != slog.KindAny {
		return slog.Attr{Key: a.Key, Value: v}
	}
	text := fmt.Sprint(v.Any())
	if clean := hide(h.secrets, text); clean != text {
		return slog.String(a.Key, clean)
	}
	return slog.Attr{Key: a.Key, Value: v}
}
