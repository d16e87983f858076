// Package files is an identity that stands in files, which somebody else renews:
// cert-manager, a Kubernetes secret that is mounted, or `penstock ca`.
//
// [Open] reads a folder that holds tls.crt (the certificate, then those between it
// and the authority), tls.key and ca.crt (the authorities of its trust domain). A
// file ca-TRUST-DOMAIN.crt holds those of another domain, whose apps may call too.
// Run reads the files again when one of them changed.
//
// It promises that files which do not fit each other, or could not be used, leave
// what was read before in force, and are named in the log once.
package files

import (
	"context"
	"crypto/x509"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
)

// The files of a folder.
const (
	CertFile = "tls.crt"
	KeyFile  = "tls.key"
	CAFile   = "ca.crt"
)

// Options are the settings of a [Source].
type Options struct {
	Dir string
	// Namespace and AppID are whom the certificate must be for.
	Namespace, AppID string
	// Interval is how often the files are read whatever the system tells of
	// changes; default 10 s.
	Interval time.Duration
	Logger   *slog.Logger
}

// Source is an [identity.Source].
type Source struct {
	identity.Box
	o    Options
	read map[string]string // what was read last
	said string            // what is wrong with it, in the log
}

var _ identity.Source = (*Source)(nil)

// Open reads the files. What is wrong with them is an error that names the file.
func Open(o Options) (*Source, error) {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{o: o}
	texts, err := s.texts()
	if err != nil {
		return nil, err
	}
	if err := s.use(texts); err != nil {
		return nil, err
	}
	return s, nil
}

// Run implements [identity.Source].
func (s *Source) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	nudge := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := config.WatchFile(ctx, filepath.Join(s.o.Dir, CertFile), nudge, nudge); err != nil {
			s.o.Logger.Debug("Changes of identity files are not told; reading them in intervals", "every", s.o.Interval, "error", err)
		}
	}()
	defer func() { <-watching }()
	tick := time.NewTicker(s.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		s.again()
	}
}

// again takes over what changed.
func (s *Source) again() {
	texts, err := s.texts()
	if err == nil && maps.Equal(texts, s.read) {
		return
	}
	if err == nil {
		err = s.use(texts)
	}
	switch {
	case err == nil:
		s.said = ""
		s.o.Logger.Info("Identity taken over from its files", "folder", s.o.Dir)
		return
	case err.Error() != s.said:
		s.said = err.Error()
		s.o.Logger.Error("Identity files cannot be used; the identity before stays", "error", err)
	}
	s.Fail(err)
}

// texts reads the files, by their names.
func (s *Source) texts() (map[string]string, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, fault.Wrap(err, "read identity files")
	}
	names := []string{CertFile, KeyFile, CAFile}
	for _, e := range entries {
		if ofDomain(e.Name()) != "" {
			names = append(names, e.Name())
		}
	}
	texts := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(s.o.Dir, name))
		if err != nil {
			return nil, fault.Wrap(err, "read identity files")
		}
		texts[name] = string(text)
	}
	return texts, nil
}

// ofDomain returns whose authorities a file holds; empty: it is no such file.
func ofDomain(name string) string {
	domain, ok := strings.CutPrefix(name, "ca-")
	domain, crt := strings.CutSuffix(domain, ".crt")
	if !ok || !crt {
		return ""
	}
	return domain
}

// use takes over what was read, when it can be used.
func (s *Source) use(texts map[string]string) error {
	s.read = texts
	chain, err := s.certificates(CertFile)
	if err != nil {
		return err
	}
	key, err := identity.ParseKey([]byte(texts[KeyFile]))
	if err != nil {
		return fault.Wrap(err, "use %s", s.path(KeyFile))
	}
	id, err := identity.OfCertificate(chain[0])
	if err != nil {
		return fault.As(fault.Invalid, fault.Wrap(err, "use %s", s.path(CertFile)))
	}
	trust := identity.Trust{Domains: map[string]*x509.CertPool{}}
	for name := range texts {
		domain := ofDomain(name)
		if name == CAFile {
			domain = id.TrustDomain
		}
		if domain == "" {
			continue
		}
		list, err := s.certificates(name)
		if err != nil {
			return err
		}
		if trust.Domains[domain] != nil {
			return fault.New(fault.Invalid, "use %s: the authorities of its own trust domain, %s, stand in %s", s.o.Dir, domain, CAFile)
		}
		trust.Domains[domain] = identity.Pool(list)
	}
	fresh, err := identity.New(chain, key, trust)
	if err != nil {
		return fault.Wrap(err, "use identity files in %s", s.o.Dir)
	}
	if id.Namespace != s.o.Namespace || id.App != s.o.AppID {
		return fault.New(fault.Invalid, "use %s: it is for %s, but this is app %s in namespace %s; give files that are for it", s.path(CertFile), id, s.o.AppID, s.o.Namespace)
	}
	s.Put(fresh)
	return nil
}

func (s *Source) path(name string) string { return filepath.Join(s.o.Dir, name) }

func (s *Source) certificates(name string) ([]*x509.Certificate, error) {
	list, err := identity.ParseCertificates([]byte(s.read[name]))
	if err != nil {
		return nil, fault.Wrap(err, "use %s", s.path(name))
	}
	return list, nil
}
