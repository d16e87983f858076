// Package canary looks for secrets where none may be.
//
// A canary is a text that stands nowhere else. Each place in which a secret can
// stand gets one of its own: every secret option of every component of the build,
// passwords and queries in addresses, environment, tokens, headers, payloads of
// events that fail, keys and paths of requests. The tests then gather everything that
// the program says, to logs, answers, metrics, collectors of traces, console and
// command line, and name the place whose canary is in it.
//
// A new component is taken in by itself: its options say what is a secret. One whose
// options must have a form gets a line in plant_test.go, which a test asks for.
package canary
