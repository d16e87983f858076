package config

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Options says what to read and for whom. The zero value reads nothing.
type Options struct {
	// AppID and Namespace are those of the app. Documents whose scopes do not
	// name AppID are left out after they were checked, and those of another
	// namespace too, when both sides name one.
	AppID, Namespace string
	// Resources are folders, of which the *.yaml and *.yml files directly
	// inside are read, in order of their names; a file is read itself.
	Resources []string
	// Configs are files with Configuration documents; later ones win.
	Configs []string
	// Env looks up an environment variable; nil knows none.
	Env func(name string) (value string, ok bool)
	// UUID stands for the template {uuid}; empty makes a new one per reading.
	UUID string
	// Interval is how often Watch looks without being told of a change; zero
	// is 60 s.
	Interval time.Duration
	// Last is the set in use when Watch begins: a change made before that is
	// then reported at once. Only its Sum is used.
	Last *Set
}

// Load reads the resource folders and configuration files. The set holds
// everything that could be read, so it is never nil; it is fit for use when
// the problems hold no error for the reader's strictness (see [Problems.Split]).
// Nothing is opened but regular files, each of at most 4 MiB.
func Load(o Options) (*Set, Problems) {
	return read(gather(o), o)
}

// Parse is Load for one text in memory, as if it were a file of that name in a
// resource folder.
func Parse(name string, data []byte, o Options) (*Set, Problems) {
	return read([]source{{name: name, data: data}}, o)
}

// reader reads one file after the other into a set.
type reader struct {
	o        Options
	set      *Set
	names    map[string]Place // kind and name of documents that were taken
	problems Problems

	file    string
	lines   []string
	tokens  int      // of this file so far
	config  bool     // this file was given as a configuration file
	draft   bool     // this is a text that is being written
	drafted []string // the names of the Configurations in it
	instead []string // those that count instead of the ones of the files
	secret  []string // what no message may show of the document being read
	covered []string // what its source lines are shown without
	filled  []string // values that no message may quote
}

// Bounds for one file.
const (
	maxFileTokens = 4 * maxTokens
	maxProblems   = 100
)

func read(sources []source, o Options) (*Set, Problems) {
	r := newReader(sources, o)
	for _, s := range sources {
		if s.problem != nil {
			r.add(*s.problem)
			continue
		}
		r.set.Files = append(r.set.Files, s.name)
		r.read(s)
	}
	return r.set, r.problems
}

func newReader(sources []source, o Options) *reader {
	if o.UUID == "" {
		o.UUID = newUUID()
	}
	if o.Env == nil {
		o.Env = func(string) (string, bool) { return "", false }
	}
	return &reader{o: o, set: &Set{Sum: sum(sources)}, names: map[string]Place{}}
}

// newUUID makes a version 4 UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (r *reader) add(p Problem) { r.problems = append(r.problems, p) }

func (r *reader) hard(at Place, hint, format string, args ...any) {
	r.add(Problem{Place: at, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (r *reader) lenient(at Place, hint, format string, args ...any) {
	r.add(Problem{Place: at, Text: fmt.Sprintf(format, args...), Hint: hint, Lenient: true})
}

// maxLine is the longest source line that a message shows.
const maxLine = 200

// place makes the place of a line and column of the file being read.
func (r *reader) place(line, column int) Place {
	p := Place{File: r.file, Line: line, Column: column}
	if line < 1 || line > len(r.lines) {
		return p
	}
	text := strings.TrimRight(r.lines[line-1], " \t")
	if len(text) <= maxLine {
		p.Text = text
	}
	p.Column = min(p.Column, utf8.RuneCountInString(text)+1)
	return p
}

// read reads the documents of one file.
func (r *reader) read(s source) {
	r.file, r.config, r.draft, r.lines, r.tokens = s.name, s.config, s.draft, nil, 0
	text, ok := r.plain(s.data)
	if !ok {
		return
	}
	r.lines = strings.Split(text, "\n")
	before := len(r.problems)
	for _, c := range split(r.lines) {
		if len(r.problems)-before > maxProblems || r.tokens > maxFileTokens {
			r.hard(r.place(c.from+1, 0), "", "the rest of the file was not read")
			return
		}
		for _, root := range r.parseYAML(strings.Join(r.lines[c.from:c.to], "\n")+"\n", c.from+1) {
			r.document(root)
		}
	}
}

// plain returns the text of a file without byte order mark and carriage
// returns, or reports that it is not text.
func (r *reader) plain(data []byte) (string, bool) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		r.hard(Place{File: r.file, Line: 1}, "save it as UTF-8", "the file is UTF-16, not UTF-8")
		return "", false
	}
	line, column := 1, 0
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRuneInString(text[i:])
		column++
		switch {
		case c == utf8.RuneError && size == 1:
			r.hard(Place{File: r.file, Line: line, Column: column}, "save it as UTF-8", "byte 0x%02x is not UTF-8", text[i])
			return "", false
		case c == '\n':
			line, column = line+1, 0
		case c < ' ' && c != '\t' || c == 0x7f || c == '\ufffe' || c == '\uffff':
			r.hard(Place{File: r.file, Line: line, Column: column}, `write it as an escape in double quotes`, "control character %U is not allowed", c)
			return "", false
		}
		i += size
	}
	return text, true
}

// chunk is a run of lines that holds one document.
type chunk struct{ from, to int }

// split cuts a file at the lines that part documents, so that a mistake in one
// document does not hide the others.
func split(lines []string) (chunks []chunk) {
	from := 0
	directives := true // nothing but directives and comments so far
	for i, line := range lines {
		begins := line == "---" || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "---\t")
		ends := line == "..." || strings.HasPrefix(line, "... ")
		if begins && i > from && !directives {
			chunks = append(chunks, chunk{from, i})
			from = i
		}
		if begins {
			directives = false
		}
		if ends {
			chunks = append(chunks, chunk{from, i})
			from, directives = i+1, true
			continue
		}
		if s := strings.TrimSpace(line); s != "" && s[0] != '%' && s[0] != '#' {
			directives = false
		}
	}
	return append(chunks, chunk{from, len(lines)})
}

// goodName tells whether a document may be called so: it may become part of a path.
func goodName(name string) bool { return len(name) <= 253 && nameForm.MatchString(name) }

// A bound in a form makes a program of that size at every start, so it is not here.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// header is what all documents share.
type header struct {
	kind, name string
	scopes     []string
	at, nameAt Place
}

// take tells whether a document is for this
// app and has a name of its own.
func (r *reader) take(h header) bool {
	if len(h.scopes) > 0 && !slices.Contains(h.scopes, r.o.AppID) {
		r.elsewhere(h)
		return false
	}
	if h.name == "" {
		return true
	}
	key := h.kind + "/" + h.name
	if first, dup := r.names[key]; dup {
		r.hard(h.nameAt, "rename one of them", "%s %q is already defined at %s", h.kind, h.name, first)
		return false
	}
	r.names[key] = h.nameAt
	return true
}

// elsewhere notes a component that is not for this app.
func (r *reader) elsewhere(h header) {
	if h.kind == "Component" {
		r.set.Elsewhere = append(r.set.Elsewhere, h.name)
	}
}
