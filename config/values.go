package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// ParseBool reads a truth value the way Dapr does: y, yes, true, t, on and 1,
// in any case, are true. Their opposites are false; anything else is an error
// of kind Invalid, where Dapr takes it for false.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "y", "yes", "true", "t", "on", "1":
		return true, nil
	case "n", "no", "false", "f", "off", "0":
		return false, nil
	}
	return false, fault.New(fault.Invalid, "parse bool %q: want true or false", s)
}

// ParseDuration reads a Go duration such as "1m30s"; a bare number is seconds,
// as in Dapr. The kind of its error is Invalid.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	if bareNumber.MatchString(s) {
		if d, err := time.ParseDuration(s + "s"); err == nil {
			return d, nil
		}
	}
	return 0, fault.New(fault.Invalid, "parse duration %q: want a duration such as 1m30s, or a number of seconds", s)
}

var (
	bareNumber = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?$`)
	sizeForm   = regexp.MustCompile(`^([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?) ?([A-Za-z]*)$`)
)

// ParseSize reads a number of bytes: a number with an optional unit. Ki, Mi,
// Gi, Ti and Pi count in 1024s; k, M, G, T and P count in 1000s; a B may follow,
// and the case does not matter. A fraction of a byte is rounded up. The kind of
// its error is Invalid.
func ParseSize(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, sizeError(s)
	}
	unit, ok := sizeUnit(strings.ToLower(m[2]))
	if !ok {
		return 0, sizeError(s)
	}
	if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return 0, sizeError(s)
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || math.Abs(f*float64(unit)) >= math.MaxInt64 {
		return 0, sizeError(s)
	}
	return int64(math.Ceil(f * float64(unit))), nil
}

func sizeError(s string) error {
	return fault.New(fault.Invalid, "parse size %q: want a number of bytes such as 1000, 64Ki or 4Mi", s)
}

// sizeUnit returns the bytes in a unit, which is in lower case.
func sizeUnit(unit string) (int64, bool) {
	unit = strings.TrimSuffix(unit, "b")
	base := int64(1000)
	if rest, ok := strings.CutSuffix(unit, "i"); ok {
		if rest == "" {
			return 0, false
		}
		base, unit = 1024, rest
	}
	if unit == "" {
		return 1, true
	}
	power := strings.Index("kmgtp", unit) + 1
	if len(unit) != 1 || power == 0 {
		return 0, false
	}
	bytes := int64(1)
	for range power {
		bytes *= base
	}
	return bytes, true
}
