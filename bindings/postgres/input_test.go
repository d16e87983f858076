package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
)

func TestInputOptions(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name    string
		options map[string]string
		ok      bool
	}{
		{"a channel", map[string]string{"channel": "Orders!"}, true},
		{"a table", map[string]string{"table": "orders", "dataColumn": "body"}, true},
		{"a table in a schema", map[string]string{"table": "shop.orders", "statusColumn": "state"}, true},
		{"too many parts", map[string]string{"table": "a.b.c"}, false},
		{"a quote", map[string]string{"table": `a"b`}, false},
		{"columns without a table", map[string]string{"channel": "c", "dataColumn": "body"}, false},
		{"one status", map[string]string{"table": "t", "statusColumn": "s", "statusDone": "new"}, false},
		{"no poll", map[string]string{"table": "t", "pollInterval": "1ms"}, false},
		{"none in flight", map[string]string{"table": "t", "maxInFlight": "0"}, false},
	}
	for _, r := range rows {
		items := []config.Item{{Name: "host", Value: "h"}}
		for name, value := range r.options {
			items = append(items, config.Item{Name: name, Value: value})
		}
		if errs, _ := Component.Check(items).Split(false); (len(errs) == 0) != r.ok {
			t.Errorf("%s: %v", r.name, errs)
		}
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	types := map[string]string{"id": "bigint", "body": "bytea", "text": "text", `odd"name`: "character varying"}
	o := inputOptions{KeyColumn: "id"}
	s := build(o, `"t"`, types)
	if !strings.Contains(s.take, "to_json(t)") || !strings.Contains(s.take, "::bigint[]") || s.finish != `DELETE FROM "t" WHERE "id" = $1::text::bigint` {
		t.Errorf("a row as it is: %+v", s)
	}
	o.DataColumn, o.StatusColumn, o.StatusWaiting, o.StatusDone, o.Where = "body", `odd"name`, "it's", "done", "t.x > 1 OR t.y"
	s = build(o, `"t"`, types)
	for _, part := range []string{`t."body"`, `t."odd""name" = 'it''s'::character varying`, "(t.x > 1 OR t.y)", "FOR UPDATE OF t SKIP LOCKED"} {
		if !strings.Contains(s.take, part) {
			t.Errorf("%s lacks %s", s.take, part)
		}
	}
	if strings.Contains(s.take, `"body"::text`) || !strings.HasPrefix(s.finish, `UPDATE "t" SET "odd""name" = 'done'`) {
		t.Errorf("a marked row: %+v", s)
	}
	o.DataColumn = "text"
	if s = build(o, `"t"`, types); !strings.Contains(s.take, `t."text"::text`) {
		t.Errorf("a text: %s", s.take)
	}
}

func TestChannelKeepsWhatIsNotDone(t *testing.T) {
	t.Parallel()
	c := &channel{name: "c", bell: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	for _, payload := range []string{"a", "b"} {
		c.heard(t.Context(), payload)
	}
	n, _, _ := c.next()
	d := c.deliver(n)
	d.Settle(cloudevents.Retried(nil, time.Hour))
	d.Settle(cloudevents.Acked())
	n, _, _ = c.next()
	if n == nil || n.payload != "b" {
		t.Fatalf("next is %+v, want b: a waits for its retry", n)
	}
	c.deliver(n).Settle(cloudevents.Left("stopping"))
	n, pause, _ := c.next()
	if n != nil || pause > time.Hour || pause < time.Minute || len(c.left) != 1 {
		t.Errorf("next is %+v in %s, left %v", n, pause, c.left)
	}
	c.notes[0].due = time.Time{}
	if n, _, _ = c.next(); n.attempt != 2 || n.id != d.Event.ID() {
		t.Errorf("the retry is attempt %d", n.attempt)
	}
}
