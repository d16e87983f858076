// Package outcome holds the delivery contract to its table: every answer an app
// can give, over every way an event can reach it, on every embedded broker,
// with and without a dead letter topic.
package outcome
