package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/port"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"penstock": main,
		"daprd":    main, // the same program under the name that tooling expects
		"shop":     shop,
		"till":     till,
	})
}

// TestScripts runs the stories of testdata/script: what a person types and
// what is then to be read.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			// Where instances tell of themselves; each story sees its own.
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"port":   ports,
			"http":   request,
			"free":   isFree,
			"json":   isJSON,
			"await":  awaitWord,
			"retry":  retry,
			"letter": letter,
			"count":  count,
			"term":   term,
		},
	})
}

// shop is an app: it prints the events that it gets and ends on SIGTERM.
func shop() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"pubsubname":"pubsub","topic":"orders","route":"/orders"}]`)
	})
	var seen atomic.Int64
	mux.HandleFunc("GET /seen/{n}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("n") != strconv.FormatInt(seen.Load(), 10) {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("POST /orders", func(_ http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		body, _ := io.ReadAll(r.Body)
		var e struct{ Data json.RawMessage }
		_ = json.Unmarshal(body, &e)
		fmt.Printf("order %s\n", e.Data)
		if len(os.Args) > 1 {
			code, _ := strconv.Atoi(os.Args[1])
			os.Exit(code)
		}
	})
	go func() { _ = http.ListenAndServe("127.0.0.1:"+os.Getenv("APP_PORT"), mux) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
	fmt.Println("shop closed")
}

// till is an app that gives up every order while there is a file called broken.
// What it got last is in refused or in taken.
func till() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"pubsubname":"pubsub","topic":"orders","route":"/orders","deadLetterTopic":"orders-failed"}]`)
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		name := "taken"
		if _, err := os.Stat("broken"); err == nil {
			name = "refused"
			w.WriteHeader(http.StatusInternalServerError)
		}
		body, _ := io.ReadAll(r.Body)
		_ = os.WriteFile(name, body, 0o600)
	})
	_ = http.ListenAndServe("127.0.0.1:"+os.Getenv("APP_PORT"), mux)
}

// ports NAME... sets variables to ports that nobody uses.
func ports(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		p, err := port.Free()
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(p))
	}
}

// patience is how long anything here may take.
const patience = time.Minute

// until polls f.
func until(ts *testscript.TestScript, what string, f func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("not so after %v: %s", patience, what)
		}
	}
}

// request is: http [-force] METHOD URL STATUS [body]. It polls while nothing
// listens, and a GET until the answer is the one that is wanted.
func request(ts *testscript.TestScript, _ bool, args []string) {
	force := len(args) > 0 && args[0] == "-force"
	if force {
		args = args[1:]
	}
	if len(args) < 3 {
		ts.Fatalf("usage: http [-force] METHOD URL STATUS [body]")
	}
	until(ts, strings.Join(args, " "), func() bool {
		req, err := http.NewRequest(args[0], args[1], strings.NewReader(strings.Join(args[3:], " ")))
		ts.Check(err)
		req.Header.Set("Content-Type", "application/json")
		if force {
			req.Header.Set("Dapr-Force-Shutdown", "true")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if strconv.Itoa(resp.StatusCode) != args[2] {
			if args[0] == http.MethodGet {
				return false
			}
			ts.Fatalf("%s %s is answered %d: %s", args[0], args[1], resp.StatusCode, body)
		}
		return true
	})
}

// isFree is: free PORT, or ! free PORT, which waits until somebody listens.
func isFree(ts *testscript.TestScript, neg bool, args []string) {
	answers := func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+args[0])
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	if neg {
		until(ts, "somebody listens on "+args[0], answers)
	} else if answers() {
		ts.Fatalf("somebody listens on %s", args[0])
	}
}

// term asks the program that was started last to end; "term -gone" asks until
// it has.
func term(ts *testscript.TestScript, _ bool, args []string) {
	list := ts.BackgroundCmds()
	if len(list) == 0 {
		ts.Fatalf("nothing runs in the background")
	}
	p := list[len(list)-1].Process
	ts.Check(p.Signal(syscall.SIGTERM))
	if len(args) > 0 {
		until(ts, "it has ended", func() bool { return p.Signal(syscall.SIGTERM) != nil })
	}
}

// isJSON is: json FILE WORD..., which wants each word in the valid JSON.
func isJSON(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !json.Valid([]byte(text)) {
		ts.Fatalf("%s is not JSON", args[0])
	}
	for _, word := range args[1:] {
		if !strings.Contains(text, strconv.Quote(word)) {
			ts.Fatalf("%s does not have %q", args[0], word)
		}
	}
}

// letter is: letter VARIABLE FILE, which sets it to the id of the first dead
// letter in a list.
func letter(ts *testscript.TestScript, _ bool, args []string) {
	var list []struct{ ID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &list))
	if len(list) == 0 {
		ts.Fatalf("%s has no dead letter", args[1])
	}
	ts.Setenv(args[0], list[0].ID)
}

// count is: count N FLAG..., which waits until that many dead letters are listed.
func count(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, args[0]+" dead letters", func() bool {
		err := ts.Exec("penstock", append([]string{"deadletters", "list", "--output", "json"}, args[1:]...)...)
		ts.Check(err)
		var list []struct{ ID string }
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
		return strconv.Itoa(len(list)) == args[0]
	})
}

// retry is: retry WORD exec COMMAND..., which runs the command until it says the word.
func retry(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, strings.Join(args[1:], " ")+" says "+args[0], func() bool {
		return ts.Exec(args[2], args[3:]...) == nil && strings.Contains(ts.ReadFile("stdout"), args[0])
	})
}

// awaitWord is: await FILE WORD, for a file that a program is writing.
func awaitWord(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, args[0]+" says "+args[1], func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(text), args[1])
	})
}
