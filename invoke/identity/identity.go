// Package identity is who an instance is, and how it knows who another one is:
// SPIFFE identities in certificates, for mutual TLS between instances.
//
// A [Source] gives the certificate to show and the authorities to trust, and may
// change both at any time; invoke/identity/files, sentry and workload have one each.
// [ServerCredentials] and [ClientCredentials] use it, each handshake what it has at
// that moment. [Caller] says who makes a call; access control lists decide on that,
// never on a header.
//
// It promises that a text that two readers could understand differently is no
// identity, so that whatever is allowed is allowed to one app only;
// that nobody is believed whose certificate is out of its time, not of the
// authorities of its own trust domain, or for another app than the one that is
// called; and that a change of certificates ends no connection.
package identity
