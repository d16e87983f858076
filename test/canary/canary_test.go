package canary

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/penstock-io/penstock/test/process"
)

// binary is the penstock that is tested.
var binary string

func TestMain(m *testing.M) { os.Exit(process.Main(m.Run, &binary)) }

// mark begins every canary. They are such that they are keys in hex and in base64
// too, of 16 and of 24 bytes.
const mark = "c0ffee"

// canaries are the secrets that were planted, by their text.
type canaries struct {
	mu     sync.Mutex
	places map[string]string
}

// plant returns a new canary for a place.
func (c *canaries) plant(format string, args ...any) string {
	raw := make([]byte, 13)
	rand.Read(raw) // it never fails
	text := mark + hex.EncodeToString(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places == nil {
		c.places = map[string]string{}
	}
	c.places[text] = fmt.Sprintf(format, args...)
	return text
}

// count is how many were planted.
func (c *canaries) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.places)
}

// search reports each place whose canary is in a text. Who got the text may know
// those whose places begin like one of but.
func (c *canaries) search(t *testing.T, where, text string, but ...string) {
	t.Helper()
	for _, found := range c.find(text, but) {
		t.Errorf("in %s stands the secret of %s", where, found)
	}
}

// find returns the places whose canaries are in a text, each with the line.
func (c *canaries) find(text string, but []string) (found []string) {
	if !strings.Contains(text, mark) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for canary, place := range c.places {
		if at := strings.Index(text, canary); at >= 0 && !allowed(place, but) {
			found = append(found, place+":\n"+around(text, at, len(canary)))
		}
	}
	slices.Sort(found)
	return found
}

func allowed(place string, but []string) bool {
	for _, b := range but {
		if strings.HasPrefix(place, b) {
			return true
		}
	}
	return false
}

// around is the line at a place of a text, cut so that it can be read.
func around(text string, at, n int) string {
	from := max(strings.LastIndexByte(text[:at], '\n')+1, at-300)
	to := at + n
	if end := strings.IndexByte(text[to:], '\n'); end >= 0 {
		to += min(end, 200)
	} else {
		to = min(len(text), to+200)
	}
	return text[from:to]
}

// TestFind holds that a leak would be found.
func TestFind(t *testing.T) {
	t.Parallel()
	var c canaries
	secret := c.plant("the option %s", "password")
	if found := c.find("one\ntwo "+secret+" three\nfour", nil); len(found) != 1 || found[0] != "the option password:\ntwo "+secret+" three" {
		t.Errorf("found %q", found)
	}
	if found := c.find("one", nil); found != nil {
		t.Errorf("found %q where there is none", found)
	}
	if found := c.find(secret, []string{"a request", "the option"}); found != nil {
		t.Errorf("found %q, which may be there", found)
	}
}
