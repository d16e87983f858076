package rabbitmq

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// pen notes what is written at once.
type pen struct {
	net.Conn
	writes [][]byte
	fails  error
	closed bool
}

func (p *pen) Write(b []byte) (int, error) {
	if p.fails != nil {
		return 0, p.fails
	}
	p.writes = append(p.writes, bytes.Clone(b))
	return len(b), nil
}

func (p *pen) Close() error {
	p.closed = true
	return nil
}

func TestGatherer(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), gathered+1)
	half := large[:gathered/2]
	for name, row := range map[string]struct {
		parts  []string
		writes []int
	}{
		"nothing":         {nil, nil},
		"small ones":      {[]string{"a", "b", "c"}, []int{3}},
		"a large one":     {[]string{"a", string(large), "b"}, []int{1, len(large), 1}},
		"more than fits":  {[]string{string(half), string(half), "a"}, []int{gathered, 1}},
		"as much as fits": {[]string{string(half), string(half)}, []int{gathered}},
	} {
		p := &pen{}
		g := &gatherer{Conn: p}
		g.hold()
		var all bytes.Buffer
		for _, part := range row.parts {
			all.WriteString(part)
			if n, err := g.Write([]byte(part)); n != len(part) || err != nil {
				t.Errorf("%s: wrote %d, %v", name, n, err)
			}
		}
		g.release()
		if got := bytes.Join(p.writes, nil); !bytes.Equal(got, all.Bytes()) {
			t.Errorf("%s: other bytes came than were written", name)
		}
		if len(p.writes) != len(row.writes) {
			t.Fatalf("%s: %d writes, want %d", name, len(p.writes), len(row.writes))
		}
		for i, w := range p.writes {
			if len(w) != row.writes[i] {
				t.Errorf("%s: write %d has %d bytes, want %d", name, i, len(w), row.writes[i])
			}
		}
	}
}

func TestGathererIsHeldByMany(t *testing.T) {
	t.Parallel()
	p := &pen{}
	g := &gatherer{Conn: p}
	write := func(text string) {
		if _, err := g.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	}
	write("1")
	g.hold()
	write("2")
	g.hold()
	write("3")
	g.release() // what is there goes, and the rest is kept
	write("4")
	write("5")
	g.release()
	write("6")
	if got := string(bytes.Join(p.writes, []byte(" "))); got != "1 23 45 6" {
		t.Errorf("writes are %q", got)
	}
	p.fails = errors.New("broken")
	g.hold()
	write("7")
	g.release()
	if !p.closed {
		t.Error("a connection that takes nothing is not closed")
	}
}
