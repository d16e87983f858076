// Package interop lets Penstock and Dapr's own components, unmodified
// and used as a library, read from real servers what the other has written, and
// decrypt what the other has encrypted. It is a module of its own so that their
// dependencies stay out of Penstock's.
//
// What each of the two left on a server, and the documents, are kept in
// testdata, as they were. Tests of Penstock's components compare with them,
// without a server and without Dapr; "go test -tags services . -update" writes
// them anew.
package interop
