package main

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// maxMended bounds a body that takes the place of another, in bytes: as much as
// one file of the command line may have elsewhere.
const maxMended = 64 << 20

// mend puts the body into a request that is to take the place of the received
// one. Only one letter can have it.
func (c *replayLetters) mend(ctx context.Context, std *stdio, m map[string]any) error {
	var body []byte
	var err error
	switch {
	case c.Data == "" && !c.Edit:
		return nil
	case c.Data != "" && c.Edit:
		return fault.New(fault.Invalid, "--data and --edit exclude each other; give one of them")
	case len(c.IDs) != 1 || c.All || len(c.fields()) > 0:
		return fault.New(fault.Invalid, "a body of your own is for one dead letter; give one id and no filter")
	case c.Edit:
		body, err = c.edited(ctx, std)
	case c.Data == "-":
		body, err = atMost(os.Stdin)
	default:
		body, err = ownFile(c.Data)
	}
	switch {
	case err != nil:
		return err
	case utf8.Valid(body):
		m["body"] = string(body)
	default:
		m["bodyBase64"] = body
	}
	return nil
}

func ownFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "open --data: %w", err)
	}
	defer f.Close()
	return atMost(f)
}

func atMost(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxMended+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "read --data: %w", err)
	case len(body) > maxMended:
		return nil, fault.New(fault.Invalid, "read --data: it has more than %d MiB", maxMended>>20)
	}
	return body, nil
}

// edited lets the user change the body of the letter in an editor. Nothing is
// replayed when the editor fails or nothing was changed.
func (c *replayLetters) edited(ctx context.Context, std *stdio) ([]byte, error) {
	editor := strings.Fields(cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi"))
	if len(editor) == 0 {
		return nil, fault.New(fault.Invalid, "edit: $VISUAL or $EDITOR is blank; name a program")
	}
	was, err := c.received(ctx, c.IDs[0])
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "penstock-edit-") // 0700: events may be secret
	if err != nil {
		return nil, fault.New(fault.Internal, "edit: %w", err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "body")
	if json := bytes.TrimSpace(was); len(json) > 0 && json[0] == '{' {
		name += ".json"
	}
	if err := os.WriteFile(name, was, 0o600); err != nil {
		return nil, fault.New(fault.Internal, "edit: %w", err)
	}
	run := exec.CommandContext(ctx, editor[0], append(editor[1:], name)...)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, std.err, std.err // standard output is for the result
	if err := run.Run(); err != nil {
		return nil, fault.New(fault.Invalid, "edit with %s: nothing was replayed: %w", editor[0], err)
	}
	body, err := ownFile(name)
	if !bytes.HasSuffix(was, []byte("\n")) {
		body = bytes.TrimSuffix(body, []byte("\n")) // which editors add by themselves
	}
	if err == nil && bytes.Equal(body, was) {
		return nil, fault.New(fault.Invalid, "edit: nothing was changed, nothing was replayed; leave out --edit to replay it as it is")
	}
	return body, err
}

// received is the body of a letter, byte for byte.
func (c *replayLetters) received(ctx context.Context, id string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(lettersPath+"/"+url.PathEscape(id)), http.NoBody)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read dead letter: %w", err)
	}
	req.Header.Set("Accept", "application/octet-stream")
	resp, err := c.open(req)
	if err != nil {
		return nil, fault.Wrap(err, "read dead letter")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read dead letter: %w", err)
	}
	return body, nil
}
