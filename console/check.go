package console

import (
	"io"
	"net/http"
)

const (
	checkPath = "/check"
	// maxDraft bounds a text that is checked, in bytes.
	maxDraft = 1 << 20
)

// Draft is what can be said about YAML documents that somebody writes.
type Draft struct {
	// Problems are in the text, or come of it in another file.
	Problems []Problem `json:"problems"`
	// Notes name what is not used by this version.
	Notes []string `json:"notes"`
	// Changes are what would be other than now if the documents were taken over:
	// those that are new, and those that take the place of one of their name.
	Changes []Change `json:"changes"`
}

// Problem is one thing that is wrong.
type Problem struct {
	// File is empty for the text itself; lines and columns count from 1, zero is
	// not known.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
	// Warning is what serve goes on with.
	Warning bool `json:"warning"`
}

// Change is one document, or one part of the Configuration.
type Change struct {
	Kind string `json:"kind"`
	// Name is metadata.name, or the name of the part, as in "spec.tracing".
	Name string `json:"name"`
	// Change is added, changed or removed.
	Change string `json:"change"`
}

// check answers what is wrong with a text. Nothing is opened or changed by it.
func (c *console) check(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "use POST")
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDraft))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "the text has more than 1 MiB")
		return
	}
	answer(w, http.StatusOK, c.judge(text))
}
