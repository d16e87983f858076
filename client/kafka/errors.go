package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/penstock-io/penstock/fault"
)

// kindOf is the kind of an error of the client library.
func kindOf(err error) fault.Kind {
	if code, ok := errors.AsType[kafka.Error](err); ok {
		return kindOfCode(code)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.KindOf(err)
	case refusedTLS(err):
		return fault.Denied
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, protocol.ErrNoLeader), errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition),
		errors.Is(err, io.ErrNoProgress), errors.Is(err, io.ErrClosedPipe):
		return fault.Unavailable
	}
	return fault.KindOf(err)
}

// kindOfCode is the kind of an error that a broker answers with. A topic that is
// not there is a passing thing: brokers say so of one that they have not heard
// of yet, and an event that has nowhere to go must not be given up for that.
func kindOfCode(code kafka.Error) fault.Kind {
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.SASLAuthenticationFailed, kafka.TransactionalIDAuthorizationFailed, kafka.SecurityDisabled,
		kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState:
		return fault.Denied
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidTopic, kafka.InvalidRequiredAcks,
		kafka.InvalidTimestamp, kafka.UnsupportedForMessageFormat, kafka.PolicyViolation, kafka.InvalidRecord,
		kafka.UnsupportedVersion, kafka.InvalidRequest, kafka.UnsupportedCompressionType,
		kafka.InvalidSessionTimeout, kafka.InvalidGroupId, kafka.InconsistentGroupProtocol:
		return fault.Invalid
	case kafka.RequestTimedOut:
		return fault.Timeout
	case kafka.ThrottlingQuotaExceeded:
		return fault.Exhausted
	case kafka.UnknownTopicOrPartition:
		return fault.Unavailable
	}
	if code == kafka.Unknown {
		return fault.Internal
	}
	return fault.Unavailable
}

// refusedTLS tells whether one side does not accept the other's certificate.
func refusedTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return true // an alert of the other side
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// again tells whether the same request may succeed when it is sent again.
func again(err error) bool {
	switch kindOf(err) {
	case fault.Invalid, fault.Denied:
		return false
	}
	return true
}

// is tells whether err is the answer of a broker with one of the codes.
func is(err error, codes ...kafka.Error) bool {
	code, ok := errors.AsType[kafka.Error](err)
	if !ok {
		return false
	}
	return slices.Contains(codes, code)
}

// missing is the error of a topic that is not there. It is a passing thing:
// somebody may make it.
func missing(topic string) error {
	return fault.New(fault.Unavailable, "the brokers have no topic %s: create it, or set auto.create.topics.enable on them: %w",
		topic, kafka.UnknownTopicOrPartition)
}

// isMissing tells whether err says that a topic, or a partition, is not there.
func isMissing(err error) bool {
	return is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition)
}
