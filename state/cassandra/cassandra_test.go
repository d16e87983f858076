package cassandra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/port"
)

func items(pairs ...string) (list []config.Item) {
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, config.Item{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, good := range [][]config.Item{
		items("hosts", "a"),
		items("hosts", "a:9042,b", "username", "u", "password", "p", "enableHostVerification", "true"),
		items("hosts", "a", "consistency", "LocalQuorum", "protoVersion", "5", "keyspace", "K1", "table", "t_1"),
	} {
		if ps := Component.Check(good); len(ps) > 0 {
			t.Errorf("%v: %v", good, ps)
		}
	}
	for _, bad := range [][]config.Item{
		items(),
		items("hosts", "a", "port", "0"),
		items("hosts", "a", "protoVersion", "2"),
		items("hosts", "a", "replicationFactor", "0"),
		items("hosts", "a", "consistency", "Most"),
		items("hosts", "a", "keyspace", "a.b"),
		items("hosts", "a", "table", "1a"),
		items("hosts", "a", "table", "_a"),
		items("hosts", "a", "table", strings.Repeat("a", 49)),
		items("hosts", "a", "timeout", "0"),
	} {
		if ps := Component.Check(bad); len(ps) == 0 {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]gocql.Consistency{
		"All": gocql.All, "One": gocql.One, "Two": gocql.Two, "Three": gocql.Three, "Quorum": gocql.Quorum,
		"LocalQuorum": gocql.LocalQuorum, "EachQuorum": gocql.EachQuorum, "LocalOne": gocql.LocalOne, "Any": gocql.Any,
	} {
		var got gocql.Consistency
		if err := got.UnmarshalText([]byte(levels(word))); err != nil || got != want {
			t.Errorf("%s: %v, %v", word, got, err)
		}
	}
}

func TestStatement(t *testing.T) {
	t.Parallel()
	s := &store{table: "k.t"}
	insert := "INSERT INTO k.t (key, value) VALUES (?, ?)"
	for name, c := range map[string]struct {
		change state.Change
		text   string
		args   []any
	}{
		"plain":    {state.Change{Key: "a", Value: []byte("1")}, insert, []any{"a", []byte("1")}},
		"nothing":  {state.Change{Key: "a"}, insert, []any{"a", []byte{}}},
		"for ever": {state.Change{Key: "a", Value: []byte("1"), TTL: -1}, insert + " USING TTL ?", []any{"a", []byte("1"), 0}},
		"a while":  {state.Change{Key: "a", Value: []byte("1"), TTL: 1500 * time.Millisecond}, insert + " USING TTL ?", []any{"a", []byte("1"), 2}},
		"delete":   {state.Change{Key: "a", Delete: true}, "DELETE FROM k.t WHERE key = ?", []any{"a"}},
	} {
		text, args, err := s.statement(&c.change)
		if diff := cmp.Diff(c.args, args); text != c.text || err != nil || diff != "" {
			t.Errorf("%s: %q, %v (-want +got)\n%s", name, text, err, diff)
		}
	}
	if _, _, err := s.statement(&state.Change{Key: "a", TTL: mostTTL + 1}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a time to live of more than 20 years: %v", err)
	}
}

// answer is an error of a server.
type answer struct {
	code int
	text string
}

func (a answer) Code() int       { return a.code }
func (a answer) Message() string { return a.text }
func (a answer) Error() string   { return a.text }

func TestKinds(t *testing.T) {
	t.Parallel()
	for want, errs := range map[fault.Kind][]error{
		fault.Denied:      {answer{gocql.ErrCodeCredentials, "x"}, fmt.Errorf("connect: %w", answer{gocql.ErrCodeUnauthorized, "x"})},
		fault.Timeout:     {gocql.ErrTimeoutNoResponse, answer{gocql.ErrCodeWriteTimeout, "x"}, context.DeadlineExceeded},
		fault.Exhausted:   {answer{gocql.ErrCodeOverloaded, "x"}},
		fault.Invalid:     {answer{gocql.ErrCodeInvalid, "x"}, answer{gocql.ErrCodeServer, "Mutation of 9 bytes is too large"}, fault.New(fault.Invalid, "x")},
		fault.Unavailable: {answer{gocql.ErrCodeUnavailable, "x"}, gocql.ErrNoConnections, errors.New("x"), context.Canceled},
	} {
		for _, err := range errs {
			if got := fault.KindOf(classify(err)); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
	if classify(nil) != nil {
		t.Error("nothing is an error")
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	env := component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}
	with := items("hosts", "127.0.0.1", "port", strconv.Itoa(p), "username", "u", "password", "geheim")
	if _, err := Component.Open(t.Context(), env, with); fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "geheim") {
		t.Errorf("open: %v, want kind unavailable", err)
	}
}
