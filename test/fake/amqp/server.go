// Package amqp is a server of AMQP 0-9-1 in the memory of a test, as RabbitMQ
// behaves.
//
// It has exchanges (fanout, direct, topic), queues with bindings, time to live,
// dead letters, length limits, auto-delete, exclusive and single active consumer,
// publishing with confirms and returns, consumers with prefetch, priority and
// cancel notifications, and answers mistakes with the exceptions of RabbitMQ.
// [Server.Stop] and [Server.Restart] keep what is durable, [Server.Alarm]
// blocks who publishes.
//
// It promises to be strict where RabbitMQ is: a second declaration that
// differs, an unknown delivery tag or a missing exchange close the channel.
// Priorities of messages, x-expires, transactions, basic.get and users other than
// guest are not there; a quorum queue is one that counts what is requeued.
package amqp

import (
	"fmt"
	"net"
	"sync"
	"testing"
)

// Server is one server. All methods may be used by many goroutines.
type Server struct {
	addr string
	work sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	broker   *broker
	alarm    string
	calm     chan struct{} // closed when there is no alarm
}

// Start starts a server on a free port; it ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{addr: "127.0.0.1:0", conns: map[*conn]struct{}{}, calm: make(chan struct{})}
	close(s.calm)
	s.broker = newBroker(&s.mu)
	s.Restart(t)
	t.Cleanup(s.Stop)
	return s
}

// URL is its address, with user and password.
func (s *Server) URL() string { return "amqp://guest:guest@" + s.addr + "/" }

// Addr is its host and port.
func (s *Server) Addr() string { return s.addr }

// Stop ends all connections without a word, and takes no more. What is not
// durable is forgotten.
func (s *Server) Stop() {
	s.mu.Lock()
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	s.mu.Unlock()
	s.Alarm("")
	s.Cut()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broker.restart()
}

// Restart takes connections again, at the same address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.listener, s.addr = l, l.Addr().String()
	s.mu.Unlock()
	s.work.Go(func() { s.accept(l) })
}

// Cut ends all connections without a word.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cut()
	}
}

// Alarm blocks every connection that publishes from now on, as a lack of memory
// does; an empty reason is the end of it.
func (s *Server) Alarm(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.alarm
	s.alarm = reason
	switch {
	case was == "" && reason != "":
		s.calm = make(chan struct{})
	case was != "" && reason == "":
		close(s.calm)
		for c := range s.conns {
			if c.blocked {
				c.blocked = false
				c.method(0, method(10, 61))
			}
		}
	}
}

// Connections is how many there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Queues are the names of the queues, with how many messages each has, those
// that are not acknowledged included.
func (s *Server) Queues() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]int{}
	for name, q := range s.broker.queues {
		all[name] = len(q.ready) + q.unacked
	}
	return all
}

// DeleteQueue deletes a queue under its consumers.
func (s *Server) DeleteQueue(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.broker.queues[name]
	if q == nil {
		return fmt.Errorf("no queue %q", name)
	}
	s.broker.deleteQueue(q)
	return nil
}

// DeleteExchange deletes an exchange with its bindings.
func (s *Server) DeleteExchange(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broker.exchanges[name] == nil {
		return fmt.Errorf("no exchange %q", name)
	}
	delete(s.broker.exchanges, name)
	return nil
}

func (s *Server) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		c := newConn(s, raw)
		s.mu.Lock()
		if s.listener != l {
			s.mu.Unlock()
			_ = raw.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.work.Go(c.write)
		s.work.Go(c.serve)
	}
}
