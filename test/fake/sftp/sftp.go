// Package sftp is an SFTP server in the process of a test, on the real files of
// a folder.
//
// [Start] starts one; a component gets its Addr, its HostKey and a user with a
// password or with the key of PrivateKey. [Server.Cut], [Server.Stop] and
// [Server.Restart] do to it what happens to servers.
//
// It promises the protocol as OpenSSH speaks it, of the libraries that also the
// client is made of; symbolic links are not resolved in the answer to realpath,
// and a rename replaces what has the name.
package sftp

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// The user that is let in.
const (
	Username = "penstock"
	Password = "open sesame"
)

// Server is one server. All methods may be used by many goroutines.
type Server struct {
	addr   string
	config *ssh.ServerConfig
	host   ssh.Signer
	user   string // private key in PEM
	logins atomic.Int64
	work   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    map[net.Conn]struct{}
}

// Start starts a server on a free port; it ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}}
	s.host, _ = key(t)
	login, text := key(t)
	s.user = text
	s.config = &ssh.ServerConfig{
		PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if c.User() != Username || string(password) != Password {
				return nil, errors.New("wrong password")
			}
			return nil, nil
		},
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != Username || string(key.Marshal()) != string(login.PublicKey().Marshal()) {
				return nil, errors.New("unknown key")
			}
			return nil, nil
		},
	}
	s.config.AddHostKey(s.host)
	s.Restart(t)
	t.Cleanup(s.Stop)
	return s
}

func key(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block))
}

// Addr is its host and port.
func (s *Server) Addr() string { return s.addr }

// HostKey is its public key, as a line of a .pub file.
func (s *Server) HostKey() string { return string(ssh.MarshalAuthorizedKey(s.host.PublicKey())) }

// PrivateKey is a key that the user is let in with, in PEM.
func (s *Server) PrivateKey() string { return s.user }

// Logins is how many connections have been let in.
func (s *Server) Logins() int64 { return s.logins.Load() }

// Stop ends all connections without a word, and takes no more.
func (s *Server) Stop() {
	s.mu.Lock()
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	s.mu.Unlock()
	s.Cut()
	s.work.Wait()
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
		_ = c.Close()
	}
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.listener != l {
			_ = c.Close()
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() {
			s.serve(c)
			_ = c.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
}

// serve is one connection.
func (s *Server) serve(c net.Conn) {
	conn, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		return
	}
	s.logins.Add(1)
	var work sync.WaitGroup
	defer work.Wait()
	defer conn.Close()
	work.Go(func() { ssh.DiscardRequests(requests) })
	for ch := range channels {
		if ch.ChannelType() != "session" {
			_ = ch.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, asks, err := ch.Accept()
		if err != nil {
			return
		}
		work.Go(func() {
			for ask := range asks {
				ok := ask.Type == "subsystem" && string(ask.Payload[4:]) == "sftp"
				_ = ask.Reply(ok, nil)
				if ok {
					work.Go(func() { files(channel) })
				}
			}
		})
	}
}

func files(channel io.ReadWriteCloser) {
	defer channel.Close()
	server, err := sftp.NewServer(channel)
	if err != nil {
		return
	}
	_ = server.Serve() // until the client goes
	_ = server.Close()
}
