// Package identity is who an instance is, and how it knows who another one is:
// SPIFFE identities in certificates, for mutual TLS between instances.
//
// A source gives the certificate to show and the authorities to trust, and may
// change both at any time. [Parse] and [OfCertificate] read whom a certificate is
// for; access control lists decide on that, never on a header.
//
// It promises that a text that two readers could understand differently is no
// identity, so that whatever is allowed is allowed to one app only.
package identity
