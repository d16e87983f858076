package sftp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/penstock-io/penstock/component"
)

// Options say where the server is, who it must be and as whom to come. A
// component's options embed them; the names are Dapr's.
type Options struct {
	Address               string           `meta:"address,required" doc:"Host and port of the server; the port is 22 when it is left out." example:"files.example.com:22"`
	Username              string           `meta:"username,required" doc:"User to come as." example:"shop"`
	Password              component.Secret `meta:"password" doc:"Password of the user."`
	PrivateKey            component.Secret `meta:"privateKey" doc:"Private key of the user, in PEM."`
	PrivateKeyPassphrase  component.Secret `meta:"privateKeyPassphrase" doc:"Passphrase of privateKey."`
	HostPublicKey         string           `meta:"hostPublicKey" doc:"The server's public key, as in a line of its .pub file." example:"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEX"`
	KnownHostsFile        string           `meta:"knownHostsFile" doc:"File in the form of OpenSSH's known_hosts that has the server's key." example:"/etc/ssh/ssh_known_hosts"`
	InsecureIgnoreHostKey bool             `meta:"insecureIgnoreHostKey" doc:"Takes any server for the right one. Whoever is on the way can then read and change all files." default:"false"`

	SequentialMode component.Ignored `meta:"sequentialMode" doc:"Calls share one connection and do not disturb each other."`
}

// Check finds what cannot work without asking the server.
func (o Options) Check() error {
	var errs []error
	if _, err := o.hostPort(); err != nil {
		errs = append(errs, component.OptionErrorf("address", "%v", err))
	}
	switch {
	case o.Password.IsZero() && o.PrivateKey.IsZero():
		errs = append(errs, component.OptionErrorf("password", "give password or privateKey, or both"))
	case !o.PrivateKey.IsZero():
		if _, err := o.signer(); err != nil {
			errs = append(errs, component.OptionErrorf("privateKey", "%v", err))
		}
	}
	if !o.InsecureIgnoreHostKey && o.HostPublicKey == "" && o.KnownHostsFile == "" {
		errs = append(errs, component.OptionErrorf("hostPublicKey",
			"give hostPublicKey or knownHostsFile, so that no other can take the server's place; `ssh-keyscan %s` prints the key", o.host()))
	}
	if o.HostPublicKey != "" {
		if _, err := o.hostKey(); err != nil {
			errs = append(errs, component.OptionErrorf("hostPublicKey", "%v", err))
		}
	}
	return errors.Join(errs...)
}

func (o Options) hostPort() (string, error) {
	address := o.Address
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "22")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(host, "/@") {
		return "", fmt.Errorf("%q is no host and port, such as files.example.com:22", o.Address)
	}
	return address, nil
}

func (o Options) host() string {
	address, err := o.hostPort()
	if err != nil {
		return o.Address
	}
	host, _, _ := net.SplitHostPort(address) // hostPort made it
	return host
}

// signer reads the private key. Its errors tell nothing of the key.
func (o Options) signer() (ssh.Signer, error) {
	key := []byte(o.PrivateKey.Reveal())
	if o.PrivateKeyPassphrase.IsZero() {
		s, err := ssh.ParsePrivateKey(key)
		if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
			return nil, errors.New("it has a passphrase; give it as privateKeyPassphrase")
		}
		if err != nil {
			return nil, errors.New("it is no private key in PEM, with its line breaks")
		}
		return s, nil
	}
	s, err := ssh.ParsePrivateKeyWithPassphrase(key, []byte(o.PrivateKeyPassphrase.Reveal()))
	if err != nil {
		return nil, errors.New("it cannot be read with privateKeyPassphrase")
	}
	return s, nil
}

func (o Options) hostKey() (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(o.HostPublicKey))
	if err != nil {
		_, _, key, _, _, err = ssh.ParseKnownHosts([]byte(o.HostPublicKey)) // as ssh-keyscan prints it
	}
	if err != nil {
		return nil, errors.New("it is no public key; one looks like ssh-ed25519 AAAAC3NzaC1")
	}
	return key, nil
}

// auth says how to prove who we are: the key first, as ssh does.
func (o Options) auth() ([]ssh.AuthMethod, error) {
	var methods []ssh.AuthMethod
	if !o.PrivateKey.IsZero() {
		s, err := o.signer()
		if err != nil {
			return nil, fmt.Errorf("read privateKey: %w", err)
		}
		methods = append(methods, ssh.PublicKeys(s))
	}
	if password := o.Password.Reveal(); password != "" {
		methods = append(methods, ssh.Password(password),
			ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
				answers := make([]string, len(questions))
				for i := range answers {
					answers[i] = password
				}
				return answers, nil
			}))
	}
	return methods, nil
}

// verify returns what checks the server's key, and which kinds of keys it may
// show: a server that has several would else show one that is not known.
func (o Options) verify(address string) (ssh.HostKeyCallback, []string, error) {
	switch {
	case o.InsecureIgnoreHostKey:
		return ssh.InsecureIgnoreHostKey(), nil, nil
	case o.HostPublicKey != "":
		key, err := o.hostKey()
		if err != nil {
			return nil, nil, fmt.Errorf("read hostPublicKey: %w", err)
		}
		return ssh.FixedHostKey(key), algorithms(key.Type()), nil
	}
	check, err := knownhosts.New(o.KnownHostsFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read knownHostsFile: %w", err)
	}
	var kinds []string
	if known, ok := errors.AsType[*knownhosts.KeyError](check(address, &net.TCPAddr{}, nobody{})); ok {
		for _, k := range known.Want {
			kinds = append(kinds, algorithms(k.Key.Type())...)
		}
	}
	return check, kinds, nil
}

// algorithms are the ways to sign with a kind of key.
func algorithms(kind string) []string {
	if kind == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	return []string{kind}
}

// nobody is a key that no server has; asking for it tells which are known.
type nobody struct{}

// Type implements ssh.PublicKey.
func (nobody) Type() string { return "nobody" }

// Marshal implements ssh.PublicKey.
func (nobody) Marshal() []byte { return []byte("nobody") }

// Verify implements ssh.PublicKey.
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// identity is the same for options that may share a connection; it tells
// nothing about them.
func (o Options) identity() string {
	h := sha256.New()
	for _, part := range []string{
		o.Address, o.Username, o.Password.Reveal(), o.PrivateKey.Reveal(), o.PrivateKeyPassphrase.Reveal(),
		o.HostPublicKey, o.KnownHostsFile, fmt.Sprint(o.InsecureIgnoreHostKey),
	} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
