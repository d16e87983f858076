package http_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	apihttp "github.com/penstock-io/penstock/api/http"
)

// Whatever bytes a client sends: testdata/requests.json has what is answered to
// them and what is published. Behind each stands a good request, which is
// answered with 204 if both sides agree on where the one before ended, and not
// at all if the connection was closed. <<n>> stands for n bytes; slow ones end
// with the patience of the server.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/requests.json")
	must(t, err)
	var rows []struct {
		Name, Request string
		Answers       []int
		Published     []string
		Slow          bool
	}
	must(t, json.Unmarshal(text, &rows))
	padding := regexp.MustCompile(`<<(\d+)>>`)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			i, o := start(t), apihttp.ServerOptions{}
			if row.Slow {
				o.HeaderTimeout, o.ReadTimeout = 50*time.Millisecond, 50*time.Millisecond
			}
			addr, _ := serve(t, i.handler(apihttp.Options{MaxBody: 1000}), o)
			request := padding.ReplaceAllStringFunc(row.Request, func(s string) string {
				n, err := strconv.Atoi(strings.Trim(s, "<>"))
				must(t, err)
				return strings.Repeat("x", n)
			})
			if !row.Slow {
				request += "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
			}
			if diff := cmp.Diff(row.Answers, answers(t, addr, request)); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			var published []string
			for _, m := range i.broker.all() {
				published = append(published, string(m.Data))
			}
			if diff := cmp.Diff(row.Published, published); diff != "" {
				t.Errorf("published (-want +got):\n%s", diff)
			}
		})
	}
}

// answers sends bytes and returns the status codes of everything that is
// answered until the server closes the connection.
func answers(t *testing.T, addr, request string) []int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, request)
	must(t, err)
	codes := []int{}
	for r := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(r, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is still open")
		}
		if err != nil {
			return codes // closed
		}
		codes = append(codes, resp.StatusCode)
		// A server that closes with bytes unread may cut its own answer off.
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}
