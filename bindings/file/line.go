package file

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

var errLineTooLong = errors.New("line is too long")

// nextLine returns the next line with its end, which the last line need not
// have. Nothing left is io.EOF.
func nextLine(in *bufio.Reader, limit int) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(trimEnd(line)) > limit {
			return nil, errLineTooLong
		}
		switch {
		case err == nil, errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// trimEnd takes the line end off, "\n" or "\r\n".
func trimEnd(line []byte) []byte {
	if rest, ok := bytes.CutSuffix(line, []byte("\n")); ok {
		line, _ = bytes.CutSuffix(rest, []byte("\r"))
	}
	return line
}
