// Package walkthrough holds pages of docs to their word. One test makes the edits of
// writing-a-component.md in a copy of the project, builds it and runs it; another
// runs the commands of when-events-fail.md.
package walkthrough
