package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

const (
	// noteMark begins what a commit says beside its offset, before anything else
	// that others may write there.
	noteMark = "penstock:1:"
	// noteBytes is the longest note: brokers take 4096 bytes by default
	// (offset.metadata.max.bytes).
	noteBytes = 4000
)

// span is the offsets from the first up to the second, which is not in it.
type span struct{ from, to int64 }

// note tells which records at and behind an offset are done, although one before
// them is not: whoever has the partition next leaves them out. Lengths of
// stretches that are not done and that are done take turns. What does not fit is
// not told, and comes again.
func note(offset int64, done []span) string {
	if len(done) == 0 {
		return ""
	}
	most := base64.RawStdEncoding.DecodedLen(noteBytes - len(noteMark))
	var b []byte
	for _, s := range done {
		next := binary.AppendUvarint(b, uint64(s.from-offset))
		next = binary.AppendUvarint(next, uint64(s.to-s.from))
		if len(next) > most {
			break
		}
		b, offset = next, s.to
	}
	return noteMark + base64.RawStdEncoding.EncodeToString(b)
}

// noted reads a note. One of somebody else tells nothing.
func noted(offset int64, text string) (done []span) {
	code, ok := strings.CutPrefix(text, noteMark)
	if !ok {
		return nil
	}
	b, err := base64.RawStdEncoding.DecodeString(code)
	if err != nil {
		return nil
	}
	for len(b) > 0 {
		open, n := binary.Uvarint(b)
		if n <= 0 {
			return done
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return done
		}
		from := offset + int64(open)
		offset = from + int64(length)
		if from < 0 || offset < from {
			return done // nothing that we wrote
		}
		done = append(done, span{from, offset})
		b = b[n+m:]
	}
	return done
}
