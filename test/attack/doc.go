// Package attack sends hostile requests to running instances of Penstock.
//
// Each row of testdata/*.yaml is one attack: what is sent, byte for byte, what must
// be answered and what the app behind the sidecar may see of it. To add one, add a
// row; the fields are those of the type row in rows_test.go.
//
// The rows are numbered as in the list of bad inputs that they come from: B1 is a
// path that two readers understand differently, B10 a request with two lengths.
package attack
