package vault

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
)

// session has the token that requests show, and keeps it alive.
type session struct {
	o      options
	server *clienthttp.Server
	log    *slog.Logger

	turn chan struct{} // held by whoever logs in

	ctx  context.Context // ends with close
	end  context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex // guards lease
	lease lease
}

// lease is a token and its time.
type lease struct {
	token     string
	ttl       time.Duration // zero: it does not end
	first     time.Duration // the time that it had when it was new
	renewable bool
	ends      time.Time
}

func newSession(ctx context.Context, o options, server *clienthttp.Server, log *slog.Logger) *session {
	s := &session{o: o, server: server, log: log, turn: make(chan struct{}, 1)}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// open gets the first token, or looks whether the server takes the one given.
func (s *session) open(ctx context.Context) error {
	if s.logsIn() {
		if _, err := s.login(ctx, ""); err != nil {
			return err
		}
	} else if err := s.lookup(ctx); err != nil {
		return err
	}
	if s.current().ttl > 0 && s.o.TokenPath == "" {
		s.work.Go(s.keep)
	}
	return nil
}

func (s *session) close() {
	s.end()
	s.work.Wait()
}

func (s *session) logsIn() bool { return s.o.Auth != byToken }

func (s *session) current() lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

func (s *session) take(l lease) {
	if l.ttl > 0 {
		l.ends = time.Now().Add(l.ttl)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = l
}

// token returns what to show with the next request.
func (s *session) token() (string, error) {
	if !s.logsIn() && s.o.TokenPath != "" {
		return readFile("vaultTokenMountPath", s.o.TokenPath)
	}
	return s.current().token, nil
}

// lookup asks the server about the token. That the token may not ask about
// itself is no error: it may still read secrets, and is not renewed.
func (s *session) lookup(ctx context.Context) error {
	l := lease{token: s.o.Token.Reveal()}
	if s.o.TokenPath != "" {
		var err error
		if l.token, err = s.token(); err != nil {
			return err
		}
	}
	a, err := s.do(ctx, clienthttp.Call{Path: "/v1/auth/token/lookup-self"}, l.token)
	if err != nil {
		return err
	}
	switch err := refusal(a); {
	case err != nil && fault.KindOf(err) == fault.Denied && !isBadToken(a):
		s.log.Info("Vault token may not look itself up; it is not renewed")
	case err != nil:
		return fault.Wrap(err, "show the token")
	default:
		var answer struct {
			Data struct {
				TTL       int64 `json:"ttl"`
				Renewable bool  `json:"renewable"`
			} `json:"data"`
		}
		if json.Unmarshal(a.Body, &answer) != nil {
			return malformed(s.server.Host())
		}
		l.ttl, l.renewable = seconds(answer.Data.TTL), answer.Data.Renewable
		l.first = l.ttl
	}
	s.take(l)
	return nil
}

// isBadToken tells whether the server does not know the token at all.
func isBadToken(a *clienthttp.Answer) bool {
	text := strings.Join(complaints(a), " ")
	return strings.Contains(text, "invalid token") || strings.Contains(text, "bad token")
}

// seconds is a time of at most a year, or zero.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), 365*24*3600)) * time.Second
}

// login gets another token than the one used, unless somebody else just did.
func (s *session) login(ctx context.Context, used string) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", fault.Wrap(ctx.Err(), "log in to %s", s.server.Host())
	}
	if now := s.current().token; now != used {
		return now, nil
	}
	path, body, err := s.credentials()
	if err != nil {
		return "", err
	}
	l, err := s.grant(ctx, path, body, "")
	if err != nil {
		return "", fault.Wrap(err, "log in by %s", s.o.Auth)
	}
	l.first = l.ttl
	s.take(l)
	return l.token, nil
}

// credentials are what the login method wants to see, and where.
func (s *session) credentials() (path string, body map[string]string, err error) {
	mount := strings.Trim(s.o.AuthPath, "/")
	if mount == "" {
		mount = s.o.Auth
	}
	var parts []string
	for p := range strings.SplitSeq(mount, "/") {
		parts = append(parts, url.PathEscape(p))
	}
	path = "/v1/auth/" + strings.Join(parts, "/") + "/login"
	if s.o.Auth == byKubernetes {
		jwt, err := readFile("kubernetesTokenPath", s.o.JWTPath)
		return path, map[string]string{"role": s.o.Role, "jwt": jwt}, err
	}
	body = map[string]string{"role_id": s.o.RoleID}
	secret := s.o.SecretID.Reveal()
	if s.o.SecretIDPath != "" {
		if secret, err = readFile("secretIDPath", s.o.SecretIDPath); err != nil {
			return "", nil, err
		}
	}
	if secret != "" {
		body["secret_id"] = secret
	}
	return path, body, nil
}

// grant asks for a token, or for more time for the one shown.
func (s *session) grant(ctx context.Context, path string, body map[string]string, token string) (lease, error) {
	a, err := s.do(ctx, clienthttp.Call{Method: http.MethodPost, Path: path, Body: body}, token)
	if err != nil {
		return lease{}, err
	}
	if err := refusal(a); err != nil {
		return lease{}, err
	}
	var answer struct {
		Auth struct {
			Token     string `json:"client_token"`
			Seconds   int64  `json:"lease_duration"`
			Renewable bool   `json:"renewable"`
		} `json:"auth"`
	}
	if json.Unmarshal(a.Body, &answer) != nil || !header(answer.Auth.Token) || answer.Auth.Token == "" {
		return lease{}, fault.New(fault.Unavailable, "read answer of %s: there is no token in it", s.server.Host())
	}
	return lease{token: answer.Auth.Token, ttl: seconds(answer.Auth.Seconds), renewable: answer.Auth.Renewable}, nil
}

// The pauses of keep.
const (
	shortest = time.Second // between two renewals
	again    = 5 * time.Second
)

// keep renews the token when two thirds of its time are over, or gets another
// one, until close.
func (s *session) keep() {
	for warned := false; ; {
		l := s.current()
		if l.ttl == 0 {
			return
		}
		wait := time.Until(l.ends) - l.ttl/3 - rand.N(l.ttl/20+1)
		if warned {
			wait = max(wait, again)
		}
		timer := time.NewTimer(max(wait, shortest))
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err := s.renew(l)
		switch {
		case err == nil:
			warned = false
		case s.ctx.Err() != nil:
			return
		case !s.logsIn() && (!fault.Retriable(err) || time.Now().After(l.ends)):
			s.log.Error("Vault token ends and cannot be renewed; give the component another one", "ends", l.ends.Format(time.RFC3339), "error", err)
			return
		case !warned:
			warned = true
			s.log.Warn("Vault token not renewed, trying again", "ends", l.ends.Format(time.RFC3339), "error", err)
		}
	}
}

// renew gives a token more time, or logs in when it has had most of what it can
// get.
func (s *session) renew(l lease) error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	if l.renewable {
		more, err := s.grant(ctx, "/v1/auth/token/renew-self", map[string]string{}, l.token)
		if err == nil && (more.ttl > l.first/3 || !s.logsIn()) {
			more.token, more.first = l.token, l.first
			s.take(more)
			return nil
		}
		if err != nil && (!s.logsIn() || fault.Retriable(err)) {
			return fault.Wrap(err, "renew token")
		}
	}
	if !s.logsIn() {
		return fault.New(fault.Denied, "renew token: it is not renewable")
	}
	_, err := s.login(ctx, l.token)
	return err
}

// ask reads a path of the server. When the server refuses the token of a login,
// which may have been taken back, another login is tried.
func (s *session) ask(ctx context.Context, path string) ([]byte, error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	a, err := s.do(ctx, clienthttp.Call{Path: path}, token)
	if err != nil {
		return nil, err
	}
	if a.Status == http.StatusForbidden && s.logsIn() {
		fresh, err := s.login(ctx, token)
		if err != nil {
			return nil, err
		}
		if a, err = s.do(ctx, clienthttp.Call{Path: path}, fresh); err != nil {
			return nil, err
		}
	}
	return a.Body, refusal(a)
}

func (s *session) do(ctx context.Context, c clienthttp.Call, token string) (*clienthttp.Answer, error) {
	c.Header = http.Header{"X-Vault-Request": {"true"}}
	if token != "" {
		c.Header.Set("X-Vault-Token", token)
	}
	if s.o.Namespace != "" {
		c.Header.Set("X-Vault-Namespace", s.o.Namespace)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return s.server.Do(ctx, c)
}
