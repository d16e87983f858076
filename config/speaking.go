package config

import "regexp"

// SpeaksOfSecret tells whether the name of a field, or of an option that nobody
// declares, says that its value is a secret.
func SpeaksOfSecret(name string) bool { return secretWords.MatchString(name) }

var secretWords = regexp.MustCompile(`(?i)` + secretWord)

const secretWord = `passw|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|authorization|credential|cookie|` +
	`signature|sas$|connection[_-]?string`

// masked takes what may be a secret out of a source line that is no good YAML: what
// stands behind value, or behind a word that speaks of one.
func masked(line string) string {
	// It is wanted for few files, and costs every start else.
	return regexp.MustCompile(valued).ReplaceAllString(line, "$1***")
}

const valued = `(?i)^(.*?(?:value|[\w.-]*(?:` + secretWord + `)[\w.-]*)["']?\s*:\s*)\S.*$`
