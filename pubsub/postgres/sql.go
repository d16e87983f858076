package postgres

import "strings"

// schema makes the tables. A queue is what waits for one group of a topic; the
// body of a message is there once, whatever number of groups wait for it.
//
// A row of pending is in one of four states, and what changes it holds the lock
// of its queue:
//
//	ready    process, visible_at are null and behind is false
//	held     by a member of a process
//	later    visible_at is set: a delay, or a retry, which holds back its key
//	behind   another of its key comes first; whoever acknowledges that one makes
//	         it ready again
//
// Only giving back what a dead process held needs no lock: it turns held into
// ready, so that a row that is behind still has one to wait for.
func schema() []string {
	return []string{
		`CREATE TABLE {p}processes (
			id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			seen timestamptz NOT NULL DEFAULT clock_timestamp());
		CREATE TABLE {p}queues (
			id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			topic text NOT NULL, consumer text NOT NULL,
			created timestamptz NOT NULL DEFAULT now(),
			UNIQUE (topic, consumer));
		CREATE SEQUENCE {p}ids AS bigint CACHE 1;
		CREATE TABLE {p}messages (
			id bigint PRIMARY KEY,
			created timestamptz NOT NULL DEFAULT now(), expires timestamptz,
			copies integer NOT NULL,
			metadata json, body bytea NOT NULL);
		CREATE INDEX {p}expires ON {p}messages (expires) WHERE expires IS NOT NULL;
		CREATE TABLE {p}pending (
			id bigint NOT NULL, queue integer NOT NULL,
			attempt integer NOT NULL DEFAULT 0,
			member integer NOT NULL DEFAULT 0, process bigint,
			visible_at timestamptz, behind boolean NOT NULL DEFAULT false,
			key bytea,
			PRIMARY KEY (id, queue));
		CREATE INDEX {p}ready ON {p}pending (queue, id) WHERE process IS NULL AND visible_at IS NULL AND NOT behind;
		CREATE INDEX {p}held ON {p}pending (queue, key) WHERE process IS NOT NULL;
		CREATE INDEX {p}later ON {p}pending (queue, visible_at, id) WHERE visible_at IS NOT NULL;
		CREATE INDEX {p}behind ON {p}pending (queue, key, id)
			WHERE process IS NULL AND (behind OR (visible_at IS NOT NULL AND attempt > 0));
		ALTER TABLE {p}pending SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
			autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
		ALTER TABLE {p}messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
			autovacuum_vacuum_cost_delay = 0)`,
		// A group that somebody deletes takes with it what waits for it.
		`CREATE FUNCTION {p}gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			WITH gone AS (DELETE FROM {p}pending WHERE queue = OLD.id RETURNING id)
			DELETE FROM {p}messages m USING gone WHERE m.id = gone.id
				AND NOT EXISTS (SELECT 1 FROM {p}pending p WHERE p.id = m.id AND p.queue <> OLD.id);
			RETURN NULL;
		END $$;
		CREATE TRIGGER {p}gone AFTER DELETE ON {p}queues FOR EACH ROW EXECUTE FUNCTION {p}gone()`,
	}
}

// queries are the statements of a broker, with the names of its tables.
type queries struct {
	schema                                                      []string
	probe, channel                                              string
	findQueue, makeQueue, publish                               string
	enroll, beat, dead, bury, giveBack, resign                  string
	lock, lockFast, alive, there, resync                        string
	retry, release, share, ack, sweep, unblock, notify          string
	promote, claim, due, expired, expiredQueues, expiredOrphans string
	backlog                                                     string
}

func newQueries(prefix string) queries {
	named := func(text string) string { return strings.ReplaceAll(text, "{p}", prefix) }
	q := queries{
		probe: named("{p}pending"), channel: named("{p}wake"),
		findQueue: named(`SELECT id FROM {p}queues WHERE topic = $1 AND consumer = $2`),
		makeQueue: named(`INSERT INTO {p}queues (topic, consumer) VALUES ($1, $2) ON CONFLICT DO NOTHING`),
		publish:   named(insertion),

		enroll: named(`INSERT INTO {p}processes DEFAULT VALUES RETURNING id`),
		beat:   named(`UPDATE {p}processes SET seen = clock_timestamp() WHERE id = $1`),
		dead:   named(`SELECT EXISTS (SELECT 1 FROM {p}processes WHERE seen < clock_timestamp() - ` + deadAfter + `)`),
		bury: named(`DELETE FROM {p}processes WHERE id IN (
			SELECT id FROM {p}processes WHERE seen < clock_timestamp() - ` + deadAfter + ` FOR UPDATE SKIP LOCKED)`),
		giveBack: named(`UPDATE {p}pending SET process = NULL, member = 0
			WHERE process IS NOT NULL AND process NOT IN (SELECT id FROM {p}processes)`),
		resign: named(`DELETE FROM {p}processes WHERE id = $1`),
	}
	for _, text := range schema() {
		q.schema = append(q.schema, named(text))
	}
	q.exchanges(named)
	q.backlog = named(counting)
	return q
}

// exchanges are the statements of a member's transaction, $1 is the queue.
func (q *queries) exchanges(named func(string) string) {
	q.lock = `SELECT pg_advisory_xact_lock($1, $2)`
	// Without an acknowledgement nothing is lost when a crash of the server undoes
	// the transaction: no need to wait for the disk.
	q.lockFast = `SELECT pg_advisory_xact_lock($1, $2), set_config('synchronous_commit', 'off', true)`
	q.alive = named(`SELECT id FROM {p}processes WHERE id = $1 FOR KEY SHARE`)
	q.there = named(`SELECT EXISTS (SELECT 1 FROM {p}queues WHERE id = $1)`)
	q.resync = named(`UPDATE {p}pending SET process = NULL, member = 0
		WHERE queue = $1 AND process = $2 AND member = $3 AND id <> ALL ($4::bigint[])`)
	q.retry = named(`UPDATE {p}pending p SET process = NULL, member = 0, attempt = p.attempt + 1,
		visible_at = clock_timestamp() + r.delay * interval '1 microsecond'
		FROM unnest($3::bigint[], $4::bigint[]) r (id, delay) WHERE p.queue = $1 AND p.process = $2 AND p.id = r.id`)
	q.release = named(`UPDATE {p}pending SET process = NULL, member = 0
		WHERE queue = $1 AND process = $2 AND id = ANY ($3::bigint[])`)
	// Groups that acknowledge one message at the same time must see each other.
	q.share = named(`SELECT id FROM {p}messages WHERE id = ANY ($1::bigint[]) AND copies > 1 ORDER BY id FOR UPDATE`)
	q.ack = named(`DELETE FROM {p}pending WHERE queue = $1 AND process = $2 AND id = ANY ($3::bigint[])`)
	q.sweep = named(`DELETE FROM {p}messages m WHERE id = ANY ($1::bigint[])
		AND (SELECT p.id FROM {p}pending p WHERE p.id = m.id LIMIT 1) IS NULL`) // a join might read the whole table
	q.unblock = named(`UPDATE {p}pending SET behind = false WHERE queue = $1 AND id IN (
		SELECT r.id FROM unnest($2::bytea[]) k (key), LATERAL (
			SELECT id FROM {p}pending WHERE queue = $1 AND key = k.key AND process IS NULL AND behind ORDER BY id LIMIT $3) r
		WHERE NOT EXISTS (SELECT 1 FROM {p}pending h WHERE h.queue = $1 AND h.key = k.key AND h.process IS NOT NULL))`)
	q.notify = named(`SELECT pg_notify('{p}wake', $1::text)`)
	q.promote = named(`UPDATE {p}pending SET visible_at = NULL WHERE queue = $1 AND id IN (
		SELECT id FROM {p}pending WHERE queue = $1 AND visible_at <= clock_timestamp() ORDER BY visible_at, id LIMIT 512)`)
	q.claim = named(claiming)
	q.due = named(`SELECT (extract(epoch FROM min(visible_at) - clock_timestamp()) * 1000000)::bigint
		FROM {p}pending WHERE queue = $1 AND visible_at IS NOT NULL`)
	q.expiredQueues = named(`SELECT DISTINCT p.queue FROM {p}messages m JOIN {p}pending p USING (id) WHERE m.expires <= now() LIMIT 100`)
	q.expired = named(`DELETE FROM {p}pending WHERE queue = $1 AND id IN (
		SELECT p.id FROM {p}messages m JOIN {p}pending p USING (id) WHERE m.expires <= now() AND p.queue = $1
			AND p.process IS NULL AND p.visible_at IS NULL AND NOT p.behind LIMIT 500) RETURNING id, key`)
	q.expiredOrphans = named(`DELETE FROM {p}messages m WHERE expires <= now() - interval '1 minute'
		AND NOT EXISTS (SELECT 1 FROM {p}pending p WHERE p.id = m.id)`)
}

// deadAfter is how long a process that is not heard of keeps what it holds.
const deadAfter = `interval '3.5 seconds'`

// insertion writes messages for all groups of their topics: $1 topics, $2 keys, $3
// metadata, $4 bodies, $5 delays and $6 lives, in microseconds; 0 is none.
const insertion = `WITH input AS MATERIALIZED (
	SELECT nextval('{p}ids') AS id, i.* FROM (
		SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[], $5::bigint[], $6::bigint[])
			WITH ORDINALITY u (topic, key, metadata, body, delay, life, n)
		WHERE topic IN (SELECT topic FROM {p}queues) ORDER BY n) i
), waiting AS (
	INSERT INTO {p}pending (id, queue, key, visible_at)
	SELECT i.id, q.id, i.key, CASE WHEN i.delay > 0 THEN clock_timestamp() + i.delay * interval '1 microsecond' END
	FROM input i JOIN {p}queues q USING (topic) ORDER BY i.id
	RETURNING queue
), written AS (
	INSERT INTO {p}messages (id, expires, copies, metadata, body)
	SELECT i.id, CASE WHEN i.life <> 0 THEN clock_timestamp() + i.life * interval '1 microsecond' END,
		(SELECT count(*) FROM {p}queues q WHERE q.topic = i.topic), nullif(i.metadata, '')::json, i.body
	FROM input i
)
SELECT pg_notify('{p}wake', CASE WHEN count(*) <= 500 THEN string_agg(queue::text, ',') ELSE '' END)
FROM (SELECT DISTINCT queue FROM waiting) w HAVING count(*) > 0`

// counting counts up to $3 messages that wait for group $2 of topic $1, and tells when
// the oldest of them was published. Each state has an index of its own.
const counting = `WITH q AS (SELECT id FROM {p}queues WHERE topic = $1 AND consumer = $2),
ids AS MATERIALIZED (
	SELECT min(id) AS id FROM {p}pending WHERE queue = (SELECT id FROM q) AND process IS NULL AND visible_at IS NULL AND NOT behind
	UNION ALL SELECT min(id) FROM {p}pending WHERE queue = (SELECT id FROM q) AND process IS NOT NULL
	UNION ALL SELECT min(id) FROM {p}pending WHERE queue = (SELECT id FROM q) AND visible_at IS NOT NULL
	UNION ALL SELECT min(id) FROM {p}pending WHERE queue = (SELECT id FROM q)
		AND process IS NULL AND (behind OR (visible_at IS NOT NULL AND attempt > 0))
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM {p}pending WHERE queue = (SELECT id FROM q) LIMIT $3) n),
	(SELECT created FROM {p}messages WHERE id = (SELECT min(id) FROM ids))`

// claiming takes up to $4 messages of together $6 bytes for member $3 of process $2,
// in order. One whose key is among $5, or somebody else's, or waits for a retry,
// is put behind.
const claiming = `WITH found AS (
	SELECT p.id, p.key, coalesce(m.size, 0) AS size, sum(coalesce(m.size, 0)) OVER (ORDER BY p.id) AS upto
	FROM (SELECT id, key FROM {p}pending
		WHERE queue = $1 AND process IS NULL AND visible_at IS NULL AND NOT behind ORDER BY id LIMIT $4) p
	LEFT JOIN LATERAL (SELECT octet_length(body) AS size FROM {p}messages WHERE id = p.id) m ON true
), keys AS MATERIALIZED (
	SELECT k.key,
		k.key = ANY ($5::bytea[]) OR EXISTS (SELECT 1 FROM {p}pending h WHERE h.queue = $1 AND h.key = k.key
			AND h.process IS NOT NULL AND (h.process <> $2 OR h.member <> $3)) AS taken,
		(SELECT min(w.id) FROM {p}pending w WHERE w.queue = $1 AND w.key = k.key AND w.process IS NULL
			AND (w.behind OR (w.visible_at IS NOT NULL AND w.attempt > 0))) AS first
	FROM (SELECT DISTINCT key FROM found WHERE key IS NOT NULL) k
), looked AS MATERIALIZED (
	SELECT f.id, f.upto - f.size AS before, coalesce(k.taken OR f.id > k.first, false) AS blocked
	FROM found f LEFT JOIN keys k USING (key)
), claimed AS (
	UPDATE {p}pending p SET behind = l.blocked, process = CASE WHEN NOT l.blocked THEN $2::bigint END,
		member = CASE WHEN l.blocked THEN 0 ELSE $3::integer END
	FROM looked l WHERE p.queue = $1 AND p.id = l.id AND (l.blocked OR l.before < $6)
		AND EXISTS (SELECT 1 FROM {p}processes WHERE id = $2)
	RETURNING p.id, p.behind, p.key, p.attempt
)
SELECT c.id, c.behind, c.key, c.attempt, m.id IS NULL OR coalesce(m.expires <= clock_timestamp(), false),
	CASE WHEN NOT c.behind THEN m.metadata::text END, CASE WHEN NOT c.behind THEN m.body END
FROM claimed c LEFT JOIN {p}messages m USING (id) ORDER BY c.id`
