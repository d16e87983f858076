package tls

import (
	"crypto/tls"
	"os"
	"sync"
)

// renewing is a certificate and its key of which one at least stands in a file.
// It is read again when a file has changed.
type renewing struct {
	o Options

	mu     sync.Mutex // guards what follows
	pair   *tls.Certificate
	stamps [2]os.FileInfo // of the files when they were looked at last
}

// newRenewing reads the pair for the first time.
func (o Options) newRenewing() (*renewing, error) {
	r := &renewing{o: o}
	r.changed()
	pair, err := o.pair()
	if err != nil {
		return nil, err
	}
	r.pair = &pair
	return r, nil
}

// get implements [tls.Config.GetClientCertificate]. While the files are being
// written, or do not fit each other, it is the pair from before.
func (r *renewing) get(server *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed() {
		if pair, err := r.o.pair(); err == nil {
			r.pair = &pair
		} else {
			r.stamps = [2]os.FileInfo{} // look again the next time
		}
	}
	if server.SupportsCertificate(r.pair) != nil {
		return new(tls.Certificate), nil // none, as without this function
	}
	return r.pair, nil
}

// changed tells whether a file is other than at the last call.
func (r *renewing) changed() bool {
	changed := false
	for i, t := range []Text{r.o.Cert, r.o.Key} {
		if !t.isFile() {
			continue
		}
		now, err := os.Stat(t.Value)
		if err != nil {
			continue // it is being replaced
		}
		was := r.stamps[i]
		if was == nil || !os.SameFile(was, now) || !was.ModTime().Equal(now.ModTime()) || was.Size() != now.Size() {
			changed = true
		}
		r.stamps[i] = now
	}
	return changed
}
