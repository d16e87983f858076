package http_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// pathRow is a line of testdata/paths.txt.
type pathRow struct {
	line           int
	method, target string
	status         int
	log            string // the path in the log; "-": no line, net/http refused it
	topics         []string
}

func pathRows(tb testing.TB) (rows []pathRow) {
	tb.Helper()
	text, err := os.ReadFile("testdata/paths.txt")
	must(tb, err)
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		row := pathRow{line: n + 1}
		var rest, word string
		row.method, rest, _ = strings.Cut(line, " ")
		next := func() string {
			rest = strings.TrimLeft(rest, " ")
			if quoted, err := strconv.QuotedPrefix(rest); err == nil {
				word, err = strconv.Unquote(quoted)
				must(tb, err)
				rest = rest[len(quoted):]
				return word
			}
			word, rest, _ = strings.Cut(rest, " ")
			return word
		}
		row.target = next()
		row.status, err = strconv.Atoi(next())
		must(tb, err)
		row.log = row.target
		for rest = strings.TrimLeft(rest, " "); rest != ""; {
			name, after, ok := strings.Cut(rest, "=")
			if !ok {
				tb.Fatalf("line %d: %q", row.line, rest)
			}
			rest = after
			switch value := next(); name {
			case "log":
				row.log = value
			case "topic":
				row.topics = append(row.topics, value)
			}
			rest = strings.TrimLeft(rest, " ")
		}
		rows = append(rows, row)
	}
	if len(rows) < 85 {
		tb.Fatalf("only %d rows", len(rows))
	}
	return rows
}

// everything denies all there is over HTTP.
func everything() (rules []api.Rule) {
	for _, version := range []string{"v1.0", "v1.0-alpha1", "v1.0-alpha2", "v1.0-beta1"} {
		rules = append(rules, api.Rule{Version: version, Protocol: "http"})
	}
	return rules
}

// lines is a log that is written and read by several goroutines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns what was written since it was last asked.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// Each path has one meaning, for the check of the token, the rules about APIs,
// the handler and the log alike.
func TestPaths(t *testing.T) {
	t.Parallel()
	rows := pathRows(t)
	for name, server := range map[string]struct {
		options apihttp.Options
		surface api.Surface
	}{
		"open":   {},
		"token":  {options: apihttp.Options{Tokens: []string{"x"}}},
		"denied": {surface: api.Surface{Denied: everything()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, log := start(t), &lines{}
			server.options.Logger, server.surface.Log = slog.New(slog.NewJSONHandler(log, nil)), api.CallLog{Enabled: true}
			addr, _ := serve(t, i.limited(server.options, server.surface), apihttp.ServerOptions{})
			for _, row := range rows {
				health := row.status == 204 && row.topics == nil && row.method == "GET"
				want, topics := row.status, row.topics
				switch known := row.log != "-" && row.status != 403; {
				case name == "token" && known && !health:
					want, topics = 401, nil
				case name == "denied" && known && !health && row.status != 405:
					want, topics = 404, nil
				}
				status, body, rest := talk(t, addr, row.method+" "+row.target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
				if row.method != http.MethodHead {
					_, err := rest.ReadByte() // the connection ends when the log is written
					if err == nil {
						t.Errorf("line %d: more than one answer", row.line)
					}
				}
				if status != want {
					t.Errorf("line %d: %s %q: %d %s, want %d", row.line, row.method, row.target, status, body, want)
				}
				checkTopics(t, i, row, topics)
				logged := log.take()
				if wantLog := `"method":` + quote(row.method+" "+row.log) + ","; row.log != "-" && !strings.Contains(logged, wantLog) {
					t.Errorf("line %d: log %s, want %s", row.line, logged, wantLog)
				}
			}
		})
	}
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func checkTopics(t *testing.T, i *instance, row pathRow, want []string) {
	t.Helper()
	i.broker.mu.Lock()
	defer i.broker.mu.Unlock()
	var got []string
	for _, m := range i.broker.messages {
		got = append(got, m.topic)
	}
	i.broker.messages = nil
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("line %d: published to %q, want %q", row.line, got, want)
	}
}
