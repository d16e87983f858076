package nats

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/fault"
)

// StreamOptions say which stream to use and how to make one that is missing.
type StreamOptions struct {
	Stream      string // the only stream to use; empty: those that have the subject
	Replicas    int    // 0 is 1
	Memory      bool
	MaxAge      time.Duration // 0 keeps for ever
	CreateNever bool          // a missing stream is an error
}

const mostName = 200 // bytes of a name; servers take 255

// Name makes a name that servers take for streams and consumers out of parts:
// letters, digits, - and _ stay, anything else becomes _, and a name that lost
// something by that ends in a hash of what it was.
func Name(parts ...string) string {
	whole := strings.Join(parts, "-")
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, whole)
	if name == whole && len(name) <= mostName {
		return name
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(whole)) // never fails
	return name[:min(len(name), mostName)] + "-" + strconv.FormatUint(h.Sum64(), 36)
}

// ValidSubject refuses what cannot be published to.
func ValidSubject(subject string) error {
	if err := ValidPattern(subject); err != nil {
		return err
	}
	if wild(subject) {
		return fault.New(fault.Invalid, "publish to subject %q: it holds a wildcard", subject)
	}
	return nil
}

// ValidPattern refuses what a server would take for something else. It may hold
// wildcards.
func ValidPattern(subject string) error {
	switch {
	case subject == "" || strings.HasPrefix(subject, ".") || strings.HasSuffix(subject, ".") || strings.Contains(subject, ".."):
		return fault.New(fault.Invalid, "use subject %q: a part is empty", subject)
	case strings.ContainsAny(subject, " \t\r\n\x00"):
		return fault.New(fault.Invalid, "use subject %q: it holds white space", subject)
	}
	return nil
}

// ensureStream returns the name of a stream that has the subject, which may hold
// wildcards, making one when there is none.
func (c *Conn) ensureStream(ctx context.Context, subject string, o StreamOptions) (string, error) {
	names, err := c.streams(ctx, subject, o)
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// streams returns the names of all streams that have the subject, at least one.
func (c *Conn) streams(ctx context.Context, subject string, o StreamOptions) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if o.Stream != "" {
		_, err := c.js.Stream(ctx, o.Stream)
		if err == nil || !errors.Is(err, jetstream.ErrStreamNotFound) {
			return []string{o.Stream}, err
		}
		return c.createStream(ctx, o.Stream, subject, o)
	}
	lister := c.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	var names []string
	for name := range lister.Name() {
		names = append(names, name)
	}
	if err := lister.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, err
	}
	if len(names) > 0 {
		return names, nil
	}
	return c.createStream(ctx, Name(subject), subject, o)
}

const apiTimeout = 5 * time.Second

func (c *Conn) createStream(ctx context.Context, name, subject string, o StreamOptions) ([]string, error) {
	if o.CreateNever {
		return nil, fault.New(fault.NotFound, "find stream for subject %q: there is none and createStream is off", subject)
	}
	conf := jetstream.StreamConfig{
		Name: name, Subjects: []string{subject}, Replicas: max(o.Replicas, 1), MaxAge: o.MaxAge,
		Description: "made by penstock for " + subject, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
	}
	if o.Memory {
		conf.Storage = jetstream.MemoryStorage
	}
	if o.MaxAge > 0 && o.MaxAge < 2*time.Minute {
		conf.Duplicates = o.MaxAge // it cannot be longer
	}
	_, err := c.js.CreateStream(ctx, conf)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by somebody else meanwhile, or for another subject
		s, serr := c.js.Stream(ctx, name)
		if serr == nil && covers(s.CachedInfo().Config.Subjects, subject) {
			return []string{name}, nil
		}
	}
	return []string{name}, err
}

// covers tells whether one of the subjects is the subject itself.
func covers(subjects []string, subject string) bool {
	return slices.Contains(subjects, subject)
}
