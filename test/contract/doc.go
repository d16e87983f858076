// Package contract tests Penstock from outside, the way existing apps and
// tooling meet it: the built binary beside real web apps, one test for each
// sentence of Dapr's contract that this build keeps.
package contract
