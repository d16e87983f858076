// Package walkthrough holds docs/writing-a-component.md to its word: its test
// makes the page's edits in a copy of the project, builds it and runs it.
package walkthrough
