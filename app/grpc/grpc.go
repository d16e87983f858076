// Package grpc is events in the form that Dapr's gRPC services give them.
//
// [TopicEvent] makes the message that an app or a stream gets, and
// [StatusOutcome] reads what it answers.
//
// It promises that data arrives byte for byte and that a status nobody knows is
// a retry, never a success.
package grpc
