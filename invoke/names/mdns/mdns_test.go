package mdns

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// helper is the variable that makes this program announce an app and wait.
const helper = "PENSTOCK_TEST_MDNS_ANNOUNCE"

func TestMain(m *testing.M) {
	if app := os.Getenv(helper); app != "" {
		announceForever(app)
	}
	os.Exit(m.Run())
}

// announceForever is what the other process of a test does, until it is killed or
// its standard input ends.
func announceForever(app string) {
	r := newResolver(slog.New(slog.DiscardHandler), usual())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString(0)
		cancel()
	}()
	fmt.Println("announcing")
	if err := r.Announce(ctx, names.Self{App: names.App{ID: app}, Host: "127.0.0.1", InternalPort: 1 + os.Getpid()%65000}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is another process of this machine that is announced.
type process struct {
	cmd   *exec.Cmd
	input interface{ Close() error }
}

func start(t *testing.T, app string) (p process, address string) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), helper+"="+app)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.input = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "announcing\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return p, fmt.Sprintf("127.0.0.1:%d", 1+p.cmd.Process.Pid%65000)
}

// unique is an app id that no other test on this network has.
func unique(t *testing.T, name string) string {
	t.Helper()
	return fmt.Sprintf("%s-%d-%d", name, os.Getpid(), time.Now().UnixNano())
}

// await resolves until the answer is want.
func await(t *testing.T, r *resolver, app string, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		got, err = r.Resolve(t.Context(), names.App{ID: app})
		if slices.Sort(got); slices.Equal(got, want) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	t.Fatalf("found %v (%v), want %v", got, err, want)
}

func opened(t *testing.T, p pace) *resolver {
	t.Helper()
	r := newResolver(slog.New(slog.DiscardHandler), p)
	if _, err := r.link(); err != nil {
		t.Fatalf("open: %v; loopback is enough", err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

// brisk is a pace that lets a test see somebody forgotten.
func brisk() pace {
	return pace{ask: 100 * time.Millisecond, keep: 2 * time.Second, wait: 3 * time.Second, gather: 20 * time.Millisecond, again: 50 * time.Millisecond}
}

// Processes of one machine find each other; one that stops is gone at once, one
// that is killed after its time.
func TestProcessesFindEachOther(t *testing.T) {
	t.Parallel()
	r := opened(t, brisk())
	id := unique(t, "shop")
	first, a := start(t, id)
	await(t, r, id, a)
	second, b := start(t, id)
	_, c := start(t, id)
	await(t, r, id, a, b, c)
	if err := first.input.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, r, id, b, c)
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, r, id, c)
}

func TestAnnouncedWithinOneProcess(t *testing.T) {
	t.Parallel()
	r := opened(t, brisk())
	id := unique(t, "Mixed.Case")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Announce(ctx, names.Self{App: names.App{ID: id}, Instance: "one", Host: "192.0.2.7", InternalPort: 50002})
	}()
	await(t, r, id, "192.0.2.7:50002")
	if list, err := r.Resolve(t.Context(), names.App{ID: strings.ToLower(id)}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an id in another case: %v, %v", list, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	await(t, r, id) // nobody
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	p := brisk()
	p.wait = 200 * time.Millisecond
	r := opened(t, p)
	if _, err := r.Resolve(t.Context(), names.App{ID: unique(t, "ghost")}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	for _, id := range []string{"", strings.Repeat("x", 64), "a..b", strings.Repeat("abc.", 100)} {
		if _, err := r.Resolve(t.Context(), names.App{ID: id}); fault.KindOf(err) != fault.NotFound || len(err.Error()) > 300 {
			t.Errorf("id %.20q: %v", id, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ctx, names.App{ID: unique(t, "ghost")}); err == nil {
		t.Error("found somebody with a context that has ended")
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	r := newResolver(slog.New(slog.DiscardHandler), brisk())
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), names.App{ID: "a"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("resolve: %v", err)
	}
	err := r.Announce(t.Context(), names.Self{App: names.App{ID: "a"}, Host: "127.0.0.1", InternalPort: 1})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("announce: %v", err)
	}
}

func TestHostMustBeAnAddress(t *testing.T) {
	t.Parallel()
	r := newResolver(slog.New(slog.DiscardHandler), brisk())
	err := r.Announce(t.Context(), names.Self{App: names.App{ID: "a"}, Host: "localhost", InternalPort: 1})
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "DAPR_HOST_IP") {
		t.Errorf("got %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := newResolver(slog.New(slog.DiscardHandler), usual())
	for i := range 3 * names.MaxApps {
		r.known(fmt.Sprint("app", i))
	}
	if len(r.apps) > names.MaxApps {
		t.Errorf("%d apps are kept", len(r.apps))
	}
	a := r.apps[fmt.Sprint("app", 3*names.MaxApps-1)]
	for i := range 2 * names.MaxInstances {
		r.learn(a, found{instance: fmt.Sprint(i), address: "h:1", ttl: 10})
	}
	if len(a.instances) != names.MaxInstances {
		t.Errorf("%d instances are kept", len(a.instances))
	}
}

func all(string) bool { return true }

func shop() service {
	return service{app: "shop", instance: "box:7", host: "box", ip: netip.MustParseAddr("192.0.2.1"), port: 50002}
}

// The records are those that Dapr sends: see the package comment.
func TestAnswerIsWhatDaprSends(t *testing.T) {
	t.Parallel()
	msg, err := shop().answer(ttl)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range append(m.Answers, m.Additionals...) {
		got = append(got, fmt.Sprintf("%s %d %s", r.Header.Name, r.Header.TTL, r.Body.GoString()))
	}
	want := []string{
		`shop.local. 120 dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("box\x3a7.shop.local.")}`,
		`box:7.shop.local. 120 dnsmessage.SRVResource{Priority: 0, Weight: 0, Port: 50002, Target: dnsmessage.MustNewName("box.local.")}`,
		`box:7.shop.local. 120 dnsmessage.TXTResource{TXT: []string{"shop"}}`,
		`box.local. 120 dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}`,
	}
	if !m.Response || !slices.Equal(got, want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	list := read(msg, all, false)
	if len(list) != 1 || list[0] != (found{app: "shop", instance: "box:7.shop.local.", address: "192.0.2.1:50002", ttl: ttl}) {
		t.Errorf("read %+v", list)
	}
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{"shop": true, "SHOP": true, "shop2": false, "box:7.shop": true} {
		q, err := question(id)
		if err != nil {
			t.Fatal(err)
		}
		if got := shop().asksFor(q); got != want {
			t.Errorf("a question for %s asks for shop: %v", id, got)
		}
		if len(read(q, all, true)) > 0 {
			t.Errorf("a question told of an instance")
		}
	}
	answer, err := shop().answer(ttl)
	if err != nil {
		t.Fatal(err)
	}
	if shop().asksFor(answer) {
		t.Error("an answer was taken for a question")
	}
}

// pack makes a message of Dapr's kind with changes.
func pack(t *testing.T, change func(m *dnsmessage.Message)) []byte {
	t.Helper()
	msg, err := shop().answer(ttl)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	change(&m)
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsNotBelieved(t *testing.T) {
	t.Parallel()
	host := func(ip string) func(m *dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			m.Additionals[2].Body = &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()}
		}
	}
	for name, row := range map[string]struct {
		change func(m *dnsmessage.Message)
		local  bool
		want   string
	}{
		"as it is":               {func(*dnsmessage.Message) {}, false, "192.0.2.1:50002"},
		"another text":           {func(m *dnsmessage.Message) { m.Additionals[1].Body = &dnsmessage.TXTResource{TXT: []string{"till"}} }, false, ""},
		"no text":                {func(m *dnsmessage.Message) { m.Additionals = slices.Delete(m.Additionals, 1, 2) }, false, ""},
		"no port":                {func(m *dnsmessage.Message) { m.Additionals = m.Additionals[1:] }, false, ""},
		"no address":             {func(m *dnsmessage.Message) { m.Additionals = m.Additionals[:2] }, false, ""},
		"loopback from afar":     {host("127.0.0.1"), false, ""},
		"loopback from here":     {host("127.0.0.1"), true, "127.0.0.1:50002"},
		"multicast":              {host("224.0.0.251"), true, ""},
		"unspecified":            {host("0.0.0.0"), true, ""},
		"a question":             {func(m *dnsmessage.Message) { m.Response = false }, false, ""},
		"all in one section":     {func(m *dnsmessage.Message) { m.Answers, m.Additionals = append(m.Additionals, m.Answers...), nil }, false, "192.0.2.1:50002"},
		"gone":                   {func(m *dnsmessage.Message) { m.Answers[0].Header.TTL = 0 }, false, "gone"},
		"IPv6 beside IPv4":       {func(m *dnsmessage.Message) { m.Additionals = slices.Insert(m.Additionals, 2, six(t)) }, false, "192.0.2.1:50002"},
		"IPv6 alone":             {func(m *dnsmessage.Message) { m.Additionals[2] = six(t) }, false, "[2001:db8::1]:50002"},
		"more than is looked at": {func(m *dnsmessage.Message) { m.Answers = append(many(m.Answers[0]), m.Answers...) }, false, ""},
	} {
		msg := pack(t, row.change)
		var got strings.Builder
		for _, f := range read(msg, func(id string) bool { return id == "shop" }, row.local) {
			if got.WriteString(f.address); f.ttl == 0 {
				got.WriteString("gone")
			}
		}
		if got.String() != row.want {
			t.Errorf("%s: %q, want %q", name, got.String(), row.want)
		}
	}
}

func six(t *testing.T) dnsmessage.Resource {
	t.Helper()
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("box.local."), Class: dnsmessage.ClassINET, TTL: 10},
		Body:   &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()},
	}
}

// many are more records of another app than are looked at.
func many(one dnsmessage.Resource) []dnsmessage.Resource {
	one.Header.Name = dnsmessage.MustNewName("till.local.")
	return slices.Repeat([]dnsmessage.Resource{one}, maxRecords)
}

func FuzzRead(f *testing.F) {
	msg, err := shop().answer(ttl)
	if err != nil {
		f.Fatal(err)
	}
	q, err := question("shop")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(q)
	f.Fuzz(func(t *testing.T, msg []byte) {
		shop().asksFor(msg)
		for _, found := range read(msg, all, true) {
			if found.ttl == 0 {
				continue
			}
			if _, port, err := net.SplitHostPort(found.address); err != nil || port == "0" {
				t.Errorf("address %q: %v", found.address, err)
			}
		}
	})
}
