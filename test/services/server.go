package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/test/port"
)

// patience bounds how long a server may take to answer after its start, on a
// machine that is busy with other tests.
const patience = 8 * time.Minute

// Server is one running server: a process, or for Kafka three.
type Server struct {
	// Name is the server's, as in Names; Version what runs.
	Name, Version string
	// Addr is what Need gives: the address in the form of Variable. It stays
	// the same over Stop and Start.
	Addr string
	// Nodes are the server's processes; every server has one but Kafka, which
	// has three brokers.
	Nodes []*Node
	// Doors are ways to Kafka through proxies: of each, one to every broker.
	Doors [][]Door

	dir   string
	ports []int
	// aside runs beside the nodes until Close: Erlang's name server.
	aside *Node
	term  syscall.Signal
}

// Open starts a server and waits until it answers. Close must be called.
func Open(name string) (*Server, error) {
	for _, r := range recipes() {
		if r.name == name {
			return open(r)
		}
	}
	return nil, fmt.Errorf("start %s: no such server", name)
}

func open(r recipe) (*Server, error) {
	if missing := r.missing(); len(missing) > 0 {
		return nil, fmt.Errorf("start %s: %w", r.name, absent(missing))
	}
	// The folders are open to all, since some servers run as another user.
	dir, err := os.MkdirTemp("", "penstock-"+r.name+"-")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: r.name, dir: dir, term: syscall.SIGTERM}
	err = os.Chmod(dir, 0o755)
	for range r.ports {
		p, perr := port.Free()
		s.ports = append(s.ports, p)
		err = errors.Join(err, perr)
	}
	if err == nil {
		s.Version = r.version()
		err = r.lay(s)
	}
	if err == nil && s.aside != nil {
		err = s.aside.Start()
	}
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", r.name, err), s.Close())
	}
	return s, nil
}

// Start starts what has been stopped, on the same ports and data, and returns
// when the server answers requests again, or an error after eight minutes.
func (s *Server) Start() error {
	return each(s.Nodes, (*Node).Start)
}

// Stop sends the signal to every process and waits until they have ended. With
// SIGTERM the server is stopped as a service manager would: in order, without
// waiting for its clients to go. A process that is still there after 60 seconds
// is killed, and that is an error.
func (s *Server) Stop(sig syscall.Signal) error {
	return each(s.Nodes, func(n *Node) error { return n.Stop(sig) })
}

// Kill ends every process at once, as "kill -9" does, and waits for it.
func (s *Server) Kill() error { return s.Stop(syscall.SIGKILL) }

// Close kills the server and removes its data.
func (s *Server) Close() error {
	err := s.Kill()
	if s.aside != nil {
		err = errors.Join(err, s.aside.Kill())
	}
	// A killed server's own children may still write for a moment.
	for range 20 {
		if os.RemoveAll(s.dir) == nil {
			return err
		}
		pause(50 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// at is 127.0.0.1 with the i-th of the server's ports.
func (s *Server) at(i int) string { return fmt.Sprintf("127.0.0.1:%d", s.ports[i]) }

// path joins names to the server's folder.
func (s *Server) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// write makes a file, and the folders above it, in the server's folder.
func (s *Server) write(text string, names ...string) error {
	name := s.path(names...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

// node adds a process that listens on the i-th port.
func (s *Server) node(i int, ready func(context.Context, string) error, command ...string) *Node {
	n := &Node{Addr: s.at(i), command: command, term: s.term, ready: ready, log: s.path(fmt.Sprintf("log-%d", i))}
	s.Nodes = append(s.Nodes, n)
	return n
}

// each does the same to all nodes at once.
func each(nodes []*Node, do func(*Node) error) error {
	errs := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { errs <- do(n) }()
	}
	var all error
	for range nodes {
		all = errors.Join(all, <-errs)
	}
	return all
}

func pause(d time.Duration) { <-time.After(d) }
