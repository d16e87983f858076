package cron

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/config"
	robfig "github.com/robfig/cron/v3"
	_ "time/tzdata" // time zones must not depend on what the machine has installed
)

const (
	maxText = 256
	allDay  = 1<<24 - 1 // the bits of all 24 hours
)

// schedule yields the times, called slots, at which a binding fires.
type schedule struct {
	period time.Duration        // of @every, else zero
	spec   *robfig.SpecSchedule // else; always in UTC, which stands for local clock time
	zone   *time.Location       // what local means
	hourly bool                 // the hour field allows every hour
}

// parse reads a schedule in any form of the options' documentation. zone holds
// unless the text has a zone of its own.
func parse(text string, zone *time.Location) (*schedule, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("longer than %d characters", maxText)
	}
	text = strings.TrimSpace(text)
	rest, own, err := cutZone(text)
	if err != nil {
		return nil, err
	}
	if own != nil {
		zone = own
	}
	if period, ok := strings.CutPrefix(rest, "@every"); ok {
		return parseEvery(period, zone)
	}
	spec, err := parseSpec(rest)
	if err != nil {
		return nil, err
	}
	s := &schedule{spec: spec, zone: zone, hourly: spec.Hour&allDay == allDay}
	// Any date will do: the parser looks five years ahead, and every day of the
	// calendar is within five years of this one.
	if spec.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("never fires: no month has that day")
	}
	return s, nil
}

// cutZone takes a leading TZ= or CRON_TZ= word off.
func cutZone(text string) (rest string, zone *time.Location, err error) {
	name, ok := strings.CutPrefix(text, "CRON_TZ=")
	if !ok {
		if name, ok = strings.CutPrefix(text, "TZ="); !ok {
			return text, nil, nil
		}
	}
	end := strings.IndexAny(name, " \t")
	if end < 0 {
		return "", nil, errors.New(`has a time zone and nothing after it; write fields such as "TZ=Europe/Berlin 0 4 * * *"`)
	}
	if zone, err = loadZone(name[:end]); err != nil {
		return "", nil, err
	}
	return strings.TrimSpace(name[end:]), zone, nil
}

func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return nil, errors.New("the time zone is empty; use a name such as Europe/Berlin")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q; use a name such as Europe/Berlin", name)
	}
	return zone, nil
}

func parseEvery(text string, zone *time.Location) (*schedule, error) {
	text = strings.TrimSpace(text)
	period, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("@every needs a duration such as 90s or 1h30m, not %q", text)
	case period < time.Second:
		return nil, fmt.Errorf("@every %s is too short; the shortest is 1s", text)
	case period%time.Second != 0:
		return nil, fmt.Errorf("@every %s is not a whole number of seconds", text)
	}
	return &schedule{period: period, zone: zone}, nil
}

// words are what may stand in place of fields.
func words() []string {
	return []string{"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
}

// parseSpec calls the cron parser, which panics on some texts.
func parseSpec(text string) (spec *robfig.SpecSchedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			spec, err = nil, errors.New("not a schedule")
		}
	}()
	switch {
	case text == "":
		return nil, errors.New("empty")
	case strings.HasPrefix(text, "TZ="), strings.HasPrefix(text, "CRON_TZ="):
		return nil, errors.New("has two time zones")
	}
	if text[0] == '@' && !slices.Contains(words(), text) {
		return nil, fmt.Errorf("%q is not known; %s", text, config.DidYouMean(text, append(words(), "@every")))
	}
	parser := robfig.NewParser(robfig.SecondOptional | robfig.Minute | robfig.Hour |
		robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor)
	found, err := parser.Parse(text)
	if err != nil {
		return nil, err
	}
	spec, ok := found.(*robfig.SpecSchedule)
	if !ok {
		return nil, errors.New("not a schedule")
	}
	spec.Location = time.UTC
	return spec, nil
}

// next returns the first slot after t; zero when there is none.
//
// Clocks that are put forward: a schedule that names hours fires once at the
// end of the gap for everything that fell into it. Clocks that are put back:
// it fires in the first pass of the repeated hour only. A schedule of every
// hour follows real time through both.
func (s *schedule) next(t time.Time) time.Time {
	if s.period > 0 {
		return t.Add(s.period)
	}
	at, inside := t, t // slots after at, in the zone period that inside lies in
	for range 1000 {   // periods without a slot, some 2 a year
		_, offset := inside.In(s.zone).Zone()
		_, end := inside.In(s.zone).ZoneBounds()
		local := s.spec.Next(naive(at, offset))
		if local.IsZero() {
			return time.Time{}
		}
		slot := local.Add(-time.Duration(offset) * time.Second)
		switch repeated := s.passedTwice(slot); {
		case !end.IsZero() && !slot.Before(end):
			if s.lostIn(end, offset) {
				return end.UTC()
			}
			at, inside = end.Add(-time.Nanosecond), end
		case repeated > 0:
			at = slot.Add(repeated - time.Nanosecond)
			if !end.IsZero() && !at.Before(end) {
				inside = end
			}
		default:
			return slot
		}
	}
	return time.Time{}
}

// before returns a time after which slot is next.
func (s *schedule) before(slot time.Time) time.Time {
	if s.period > 0 {
		return slot.Add(-s.period)
	}
	return slot.Add(-time.Nanosecond)
}

// naive shows what a clock with this offset shows at t, as if it were UTC.
func naive(t time.Time, offset int) time.Time {
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// lostIn tells whether slots fall into the gap that the clock jumps over at
// end, a change away from offset.
func (s *schedule) lostIn(end time.Time, offset int) bool {
	_, after := end.In(s.zone).Zone()
	if s.hourly || after <= offset {
		return false
	}
	first := s.spec.Next(naive(end, offset).Add(-time.Nanosecond))
	return !first.IsZero() && first.Before(naive(end, after))
}

// passedTwice returns how long after t the clock shows times for the second
// time, zero when it does not at t or that does not matter.
func (s *schedule) passedTwice(t time.Time) time.Duration {
	start, _ := t.In(s.zone).ZoneBounds()
	if s.hourly || start.IsZero() {
		return 0
	}
	_, before := start.Add(-time.Nanosecond).In(s.zone).Zone()
	_, now := t.In(s.zone).Zone()
	return max(0, start.Add(time.Duration(before-now)*time.Second).Sub(t))
}

// shortest returns the shortest time between two slots, as far as a sample
// shows it.
func (s *schedule) shortest() time.Duration {
	if s.period > 0 {
		return s.period
	}
	shortest := 24 * time.Hour
	t := s.next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	for range 200 {
		next := s.next(t)
		if next.IsZero() {
			break
		}
		shortest = min(shortest, next.Sub(t))
		t = next
	}
	return shortest
}

// recent returns the newest n slots in (after, until], oldest first, and
// whether there are older ones in that time. It takes steps of doubling length
// back from until, so that a long time costs little.
func (s *schedule) recent(after, until time.Time, n int) (slots []time.Time, older bool) {
	if !after.Before(until) {
		return nil, false
	}
	if s.period > 0 {
		return s.recentEvery(after, until, n)
	}
	for back := time.Minute; ; back *= 2 {
		from := until.Add(-back)
		if back > 1<<62 || !from.After(after) {
			from = after
		}
		slots = slots[:0]
		for t := s.next(from); !t.IsZero() && !t.After(until); t = s.next(t) {
			slots = append(slots, t)
			if len(slots) > 2*n {
				slots = append(slots[:0], slots[len(slots)-n:]...)
			}
		}
		if len(slots) >= n || from.Equal(after) {
			slots = slots[max(0, len(slots)-n):]
			return slots, len(slots) > 0 && s.next(after).Before(slots[0])
		}
	}
}

func (s *schedule) recentEvery(after, until time.Time, n int) (slots []time.Time, older bool) {
	passed := int64(until.Sub(after) / s.period)
	count := min(passed, int64(n))
	for i := passed - count + 1; i <= passed; i++ {
		slots = append(slots, after.Add(time.Duration(i)*s.period))
	}
	return slots, passed > count
}
