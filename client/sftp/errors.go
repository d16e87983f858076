package sftp

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/penstock-io/penstock/fault"
)

// classify gives an error of work on s its kind. An error that a caller made
// keeps its own.
func classify(err error, s *session) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if status, ok := errors.AsType[*sftp.StatusError](err); ok {
		return fault.As(statusKind(status), err)
	}
	select {
	case <-s.over: // then whatever it says comes of that
		return fault.New(fault.Unavailable, "the connection broke: %w", err)
	default:
	}
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Unavailable, "the connection broke: %w", err)
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err // the caller names the path as the user knows it
	}
	return fault.As(fault.KindOf(err), err)
}

// statusKind is about what the server answered. "Failure" is its answer to
// nearly everything, from a name that is taken to a disk that is full.
func statusKind(err *sftp.StatusError) fault.Kind {
	switch err.FxCode() {
	case sftp.ErrSSHFxNoSuchFile:
		return fault.NotFound
	case sftp.ErrSSHFxPermissionDenied:
		return fault.Denied
	case sftp.ErrSSHFxNoConnection, sftp.ErrSSHFxConnectionLost:
		return fault.Unavailable
	case sftp.ErrSSHFxBadMessage, sftp.ErrSSHFxOpUnsupported:
		return fault.Invalid
	}
	text := strings.ToLower(err.Error())
	switch {
	case strings.Contains(text, "no space"), strings.Contains(text, "quota"):
		return fault.Exhausted
	case strings.Contains(text, "directory"):
		return fault.Invalid
	}
	return fault.Internal
}

// dialKind is about a server that did not take the connection.
func dialKind(err error) fault.Kind {
	if kind := fault.KindOf(err); kind == fault.Timeout {
		return kind
	}
	return fault.Unavailable
}

// shakeKind is about a handshake that went wrong.
func shakeKind(err error) fault.Kind {
	if _, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		return fault.Denied
	}
	if _, ok := errors.AsType[*knownhosts.RevokedError](err); ok {
		return fault.Denied
	}
	text := err.Error() // the library has no types for these
	for _, sign := range []string{"unable to authenticate", "host key mismatch", "no common algorithm for host key", "subsystem request failed"} {
		if strings.Contains(text, sign) {
			return fault.Denied
		}
	}
	if kind := fault.KindOf(err); kind == fault.Timeout {
		return kind
	}
	return fault.Unavailable
}
