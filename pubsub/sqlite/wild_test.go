package sqlite

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
)

// take acknowledges the only message of a subscription and returns its topic.
func take(t *testing.T, d *driver, topic, group string) (from string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: group}, func(_ context.Context, x *cloudevents.Delivery) error {
		from = x.Topic
		x.Settle(cloudevents.Acked())
		stop()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// The body of a message is in the file once, and until the last of its groups
// is done with it, whichever that is.
func TestMessageOfTopicAndWildcardIsRemoved(t *testing.T) {
	t.Parallel()
	subs := []string{"ab", "a*", "*"}
	for last := range subs {
		t.Run(subs[last]+" is last", func(t *testing.T) {
			t.Parallel()
			d := fresh(t)
			for _, s := range subs {
				if err := d.Prepare(t.Context(), pubsub.Subscription{Topic: s, Group: "g"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Publish(t.Context(), "ab", []pubsub.Message{text("", "x")}); err != nil {
				t.Fatal(err)
			}
			for i := range subs {
				if n := number(t, d, "SELECT count(*) FROM pubsub_messages"); n != 1 {
					t.Fatalf("%d messages before %d of %d groups are done", n, i, len(subs))
				}
				take(t, d, subs[(last+1+i)%len(subs)], "g")
				until(t, "the outcome is written", func() bool {
					return number(t, d, "SELECT count(*) FROM pubsub_pending") == int64(len(subs)-1-i)
				})
			}
			if n := number(t, d, "SELECT count(*) FROM pubsub_messages"); n != 0 {
				t.Errorf("%d messages are left", n)
			}
		})
	}
}

func TestWildcardOfNobodyKeepsNothing(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	if err := d.Publish(t.Context(), "a*", []pubsub.Message{text("", "x")}); err != nil {
		t.Fatal(err)
	}
	if n := number(t, d, "SELECT count(*) FROM pubsub_queues"); n != 0 {
		t.Errorf("%d queues: others would take it for a wildcard", n)
	}
}

// Looking for wildcards must cost nothing on a file that has none.
func TestWildcardsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	d := fresh(t)
	rows, err := d.b.db.Read().Query(`EXPLAIN QUERY PLAN SELECT id, consumer, topic FROM pubsub_queues WHERE substr(topic, -1) = '*'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var a, b, c int
		var text string
		if err := rows.Scan(&a, &b, &c, &text); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, text)
	}
	if got := strings.Join(plan, "; "); !strings.Contains(got, "pubsub_wild") {
		t.Errorf("plan: %s", got)
	}
}

// A file of a version without wildcards goes on.
func TestFileOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "old.db")
	db, err := client.Open(t.Context(), component.Env{Shared: &component.Shared{}}, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), "pubsub", schema()[:5]...); err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO pubsub_queues (id, topic, consumer, seen) VALUES (1, 't', 'g', 1), (2, 'early', '', 1);
			INSERT INTO pubsub_messages (id, created, expires, key, metadata, body) VALUES (1, 1, 0, '', NULL, 'old'), (2, 1, 0, '', NULL, 'kept');
			INSERT INTO pubsub_pending (queue, id, due, attempt) VALUES (1, 1, 0, 0), (2, 2, 0, 0);`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d := openAt(t, path, option("retention", "1000000h"))
	watch(t, d).want(t, "old").Settle(cloudevents.Acked())
	if from := take(t, d, "e*", "g"); from != "early" {
		t.Errorf("the kept message came from topic %q", from)
	}
	until(t, "both are gone", func() bool { return number(t, d, "SELECT count(*) FROM pubsub_messages") == 0 })
}
