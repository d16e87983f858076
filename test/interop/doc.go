// Package interop lets Penstock and Dapr's own pub/sub components, unmodified
// and used as a library, read from real servers what the other has written. It is
// a module of its own so that their dependencies stay out of Penstock's.
//
// What each of the two left on a server is kept in testdata, as it was. Tests of
// Penstock's components compare with it, without a server and without Dapr;
// "go test -tags services . -update" writes it anew.
package interop
