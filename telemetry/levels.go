package telemetry

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// Levels are the levels of a log's parts, which may change at any time. A part is
// a piece of the instance, such as router, or a component, as component/NAME. It is
// safe for concurrent use; nil ones have no parts.
type Levels struct {
	mu    sync.Mutex
	start slog.Level            // of parts that come later
	parts map[string]*partLevel // by name
}

// partLevel is the level of one part.
type partLevel struct{ slog.LevelVar }

// Level is the level of one part.
type Level struct {
	Part  string `json:"part"`
	Level string `json:"level"` // debug, info, warn or error
}

// ComponentPart begins the names of parts that are components.
const ComponentPart = "component/"

// NewLevels returns levels that all begin at start.
func NewLevels(start slog.Level) *Levels {
	return &Levels{start: start, parts: map[string]*partLevel{}}
}

// Open returns a logger for a part whose lines go to a handler, which must take
// all levels. [Part] makes those of the other parts from it.
func (l *Levels) Open(to slog.Handler, part string) *slog.Logger {
	return slog.New(&leveled{to, l.of(part), l})
}

// Part returns a logger like another one, for a part. One that no [Levels] have
// opened stays as it is.
func Part(log *slog.Logger, part string) *slog.Logger {
	h, ours := log.Handler().(*leveled)
	if !ours {
		return log
	}
	return slog.New(&leveled{h.to, h.levels.of(part), h.levels})
}

// LevelsOf returns the levels of the log that a logger writes to, nil when it has
// none.
func LevelsOf(log *slog.Logger) *Levels {
	h, ours := log.Handler().(*leveled)
	if !ours {
		return nil
	}
	return h.levels
}

func (l *Levels) of(part string) *partLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[part]
	if p == nil {
		p = &partLevel{}
		p.Set(l.start)
		l.parts[part] = p
	}
	return p
}

// Keep forgets the components other than those named.
func (l *Levels) Keep(components []string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for part := range l.parts {
		if name, ok := strings.CutPrefix(part, ComponentPart); ok && !slices.Contains(components, name) {
			delete(l.parts, part)
		}
	}
}

// List returns the level of every part, by name.
func (l *Levels) List() []Level {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Level, 0, len(l.parts))
	for part, p := range l.parts {
		out = append(out, Level{part, strings.ToLower(p.Level().String())})
	}
	slices.SortFunc(out, func(a, b Level) int { return cmp.Compare(a.Part, b.Part) })
	return out
}

// Set changes the level of a part, or of all parts and those to come when part is
// empty. A component may be named without what begins the names of its kind, unless
// that is the name of another part. Kind NotFound for a part that is not there,
// Invalid for a word that is no level; the text lists what there is.
func (l *Levels) Set(part, level string) error {
	v, err := ParseLevel(level)
	if err != nil {
		return err
	}
	if l == nil {
		return fault.New(fault.NotFound, "set log level: this log has no parts")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if part == "" {
		l.start = v
		for _, p := range l.parts {
			p.Set(v)
		}
		return nil
	}
	p := cmp.Or(l.parts[part], l.parts[ComponentPart+part])
	if p == nil {
		return fault.New(fault.NotFound, "set log level: there is no part %q; there are %s", part, l.names())
	}
	p.Set(v)
	return nil
}

// maxNamed bounds the parts that an error names.
const maxNamed = 50

// names lists the parts for people; the caller holds mu.
func (l *Levels) names() string {
	var names []string
	for part := range l.parts {
		names = append(names, part)
	}
	slices.Sort(names)
	if len(names) > maxNamed {
		names = append(names[:maxNamed], "more")
	}
	return strings.Join(names, ", ")
}

// ParseLevel reads debug, info, warn or error in any case; fatal, Dapr's highest,
// is error, and warning is warn. Kind Invalid.
func ParseLevel(word string) (slog.Level, error) {
	switch strings.ToLower(word) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal":
		return slog.LevelError, nil
	}
	return 0, fault.New(fault.Invalid, "%q is no log level; use debug, info, warn or error", word[:min(len(word), maxNamed)])
}

// leveled implements slog.Handler: it lets through what reaches the level of its
// part. What is below costs one look at a number.
type leveled struct {
	to     slog.Handler
	level  *partLevel
	levels *Levels
}

// Enabled implements slog.Handler.
func (h *leveled) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *leveled) Handle(ctx context.Context, r slog.Record) error { return h.to.Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (h *leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &leveled{h.to.WithAttrs(attrs), h.level, h.levels}
}

// WithGroup implements slog.Handler.
func (h *leveled) WithGroup(name string) slog.Handler {
	return &leveled{h.to.WithGroup(name), h.level, h.levels}
}
