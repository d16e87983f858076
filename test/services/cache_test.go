package services

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script writes a shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFetchTriesAgain(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "mark")
	var said []string
	err := fetch(t.Context(), func(s string) { said = append(said, s) }, script(t, `test -e "$1" && exit 0; : > "$1"; echo no such host; exit 7`), mark)
	if err != nil {
		t.Errorf("the second try: %v", err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "try 1 of 4 failed: ") || !strings.HasSuffix(said[0], "exit status 7\nno such host") {
		t.Errorf("said %q", said)
	}
}

func TestCacheIsVerified(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "a.jar")
	const sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  a.jar\n" // of "hello"
	for text, words := range map[string]string{"hello": "", "hellO": "check a.jar: the sum is"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := verify(dir, sum)
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v, want %q", text, err, words)
		}
	}
	if err := verify(dir, sum+sum); err == nil || !strings.Contains(err.Error(), "1 files, not 2") {
		t.Errorf("a missing file: %v", err)
	}
}
