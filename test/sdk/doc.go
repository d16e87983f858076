// Package sdk tests Penstock with Dapr's official SDKs, unmodified: the Go SDK
// here, the JavaScript SDK in node. It is a module of its own so that the SDKs'
// dependencies stay out of Penstock's.
package sdk
