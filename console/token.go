package console

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// MinToken is the least length of a token, in bytes.
const MinToken = 16

// TokenFile is the file in the data folder with a token that nobody has chosen.
const TokenFile = "console.token"

func checkToken(token string) error {
	if len(token) < MinToken {
		return fault.New(fault.Invalid, "the console's token has %d bytes; use %d or more", len(token), MinToken)
	}
	return nil
}

// Token returns the given token, or else the one in the data folder, which is
// made when there is none: with the same one, pages that are open go on after a
// new start. Where the folder cannot be written it is a fresh one each time, and
// so it is, with an error of kind Denied, beside a file that others can read.
// Kind Invalid, without a token, for a given one that is too short.
func Token(given, dir string) (string, error) {
	if given != "" {
		if err := checkToken(given); err != nil {
			return "", fault.Wrap(err, "read PENSTOCK_CONSOLE_TOKEN")
		}
		return given, nil
	}
	name := filepath.Join(dir, TokenFile)
	token, err := readToken(name)
	switch {
	case err == nil:
		return token, nil
	case !errors.Is(err, fs.ErrNotExist):
		return rand.Text(), fault.As(fault.Denied, fault.Wrap(err, "use the console's token"))
	}
	fresh := rand.Text()
	if err := keepToken(dir, name, fresh); err != nil {
		// Another process may have been faster.
		if token, err := readToken(name); err == nil {
			return token, nil
		}
	}
	return fresh, nil
}

func readToken(name string) (string, error) {
	info, err := os.Lstat(name)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return "", fault.New(fault.Denied, "others can read %s; remove it, and a new one is made", name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	return token, checkToken(token)
}

// keepToken writes the file whole, unless there is one.
func keepToken(dir, name, token string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, TokenFile+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(token + "\n")
	return cmp.Or(err, f.Close(), os.Link(f.Name(), name))
}
