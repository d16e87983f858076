package mongodb

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/drivertest"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/xoptions"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// scripted is a store of a server that gives these answers, one after the other,
// and a function that says what it was asked.
func scripted(t *testing.T, answers ...bson.D) (s *store, asked func() []bson.Raw) {
	t.Helper()
	var commands []bson.Raw
	conf := mongooptions.Client().SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		commands = append(commands, slices.Clone(e.Command))
	}})
	if err := xoptions.SetInternalClientOptions(conf, "deployment", drivertest.NewMockDeployment(answers...)); err != nil {
		t.Fatal(err)
	}
	c, err := mongo.Connect(conf)
	if err != nil {
		t.Fatal(err)
	}
	return &store{items: c.Database("d").Collection("c"), timeout: time.Minute}, func() []bson.Raw { return commands }
}

func done(n int) bson.D {
	return bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: n}, {Key: "nModified", Value: n}}
}

func refused(code int, labels ...string) bson.D {
	return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: code}, {Key: "errmsg", Value: "no"}, {Key: "errorLabels", Value: labels}}
}

func empty() bson.D {
	return bson.D{{Key: "ok", Value: 1}, {Key: "cursor", Value: bson.D{
		{Key: "id", Value: int64(0)}, {Key: "ns", Value: "d.c"}, {Key: "firstBatch", Value: bson.A{}},
	}}}
}

// names of the commands, with spaces between them.
func names(t *testing.T, commands []bson.Raw) string {
	t.Helper()
	var all []string
	for _, c := range commands {
		first, err := c.IndexErr(0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, first.Key())
	}
	return strings.Join(all, " ")
}

// TestTransact looks at what a server is asked: no server with transactions could
// be had.
func TestTransact(t *testing.T) {
	t.Parallel()
	etag := "e"
	changes := []state.Change{{Key: "a", Value: []byte(`1`)}, {Key: "b", Delete: true, ETag: &etag}}
	transient := refused(112, "TransientTransactionError")
	for name, c := range map[string]struct {
		answers []bson.D
		want    string
		kind    fault.Kind
		fails   bool
	}{
		"whole":       {[]bson.D{done(1), done(1), done(0)}, "update delete commitTransaction", 0, false},
		"other ETag":  {[]bson.D{done(1), done(0), done(0)}, "update delete abortTransaction", fault.Conflict, true},
		"met another": {[]bson.D{transient, done(0), done(1), done(1), done(0)}, "update abortTransaction update delete commitTransaction", 0, false},
		"refused":     {[]bson.D{refused(13), done(0)}, "update abortTransaction", fault.Denied, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := scripted(t, c.answers...)
			err := s.Transact(t.Context(), changes)
			if (err != nil) != c.fails || err != nil && fault.KindOf(err) != c.kind {
				t.Errorf("got %v", err)
			}
			if got := names(t, asked()); got != c.want {
				t.Fatalf("asked %q, want %q", got, c.want)
			}
			number := int64(0)
			for _, command := range asked() {
				op, _ := command.IndexErr(0)
				n, numbered := command.Lookup("txnNumber").Int64OK()
				auto, said := command.Lookup("autocommit").BooleanOK()
				_, starts := command.Lookup("startTransaction").BooleanOK()
				if !numbered || !said || auto || starts != (n != number) || starts && command.Lookup("readConcern", "level").StringValue() != "snapshot" {
					t.Errorf("%s is not part of the transaction: %v", op.Key(), command)
				}
				if op.Key() == "commitTransaction" && command.Lookup("writeConcern", "w").StringValue() != "majority" {
					t.Errorf("most of the servers need not have it: %v", command)
				}
				number = n
			}
		})
	}
}

// TestTransacts: the server says itself whether it has transactions.
func TestTransacts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []bson.D
		want    bool
		fails   bool
	}{
		"a replica set":        {[]bson.D{empty(), done(0)}, true, false},
		"a server alone":       {[]bson.D{refused(20), done(0)}, false, false},
		"an end it has not":    {[]bson.D{empty(), refused(59), refused(59)}, false, false},
		"a reader who may not": {[]bson.D{refused(13), done(0)}, false, true},
		"a command it lacks":   {[]bson.D{refused(238), refused(59)}, false, false},
		"a server too slow":    {[]bson.D{refused(50), done(0)}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := scripted(t, c.answers...)
			got, err := s.transacts(t.Context())
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
