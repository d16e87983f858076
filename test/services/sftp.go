package services

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"

	"golang.org/x/crypto/ssh"
)

// sftp is OpenSSH's server. It lets in the user who runs the tests, with a key
// that is made for it, and nobody with a password: no account is touched.
func sftp() recipe {
	server := program("sshd", "openssh-server")
	return recipe{name: "sftp", ports: 1, tools: []tool{server}, version: says(program("ssh", "openssh-client"), "-V"), lay: func(s *Server) error {
		me, err := user.Current()
		if err != nil {
			return err
		}
		host, err := s.keys("host")
		if err != nil {
			return err
		}
		login, err := s.keys("user")
		if err != nil {
			return err
		}
		files := s.path("files")
		query := url.Values{"key": {login}, "hostkey": {host + ".pub"}}
		s.Addr = (&url.URL{Scheme: "sftp", User: url.User(me.Username), Host: s.at(0), Path: files, RawQuery: query.Encode()}).String()
		s.node(0, hears("", "SSH-2.0"), server.found(), "-D", "-e", "-f", s.path("sshd.conf"))
		err = errors.Join(os.Mkdir(files, 0o755), s.write(fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %s
AuthorizedKeysFile %s.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d %s
`, s.ports[0], host, login, files), "sshd.conf"))
		if os.Getuid() == 0 {
			err = errors.Join(err, os.MkdirAll("/run/sshd", 0o755)) // it insists, as root
		}
		return err
	}}
}

// keys makes a pair of keys; it returns the private one's path.
func (s *Server) keys(name string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "penstock test")
	if err != nil {
		return "", err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return s.path(name), errors.Join(
		os.WriteFile(s.path(name), pem.EncodeToMemory(block), 0o600),
		s.write(string(ssh.MarshalAuthorizedKey(pub)), name+".pub"))
}
