package config

import (
	"strings"
	"unicode/utf8"
)

// Nearest returns the known word that is most likely meant by word, or "" when
// none is near: about one letter in three may be wrong, missing, too many or
// swapped with its neighbour. Case, "-" and "_" do not count. Of several
// equally near words the first wins.
func Nearest(word string, known []string) string {
	if len(word) > maxNearest {
		return ""
	}
	plain := plainWord(word)
	limit := max(1, utf8.RuneCountInString(plain)/3)
	best, found := limit+1, ""
	for _, k := range known {
		if len(k) > maxNearest {
			continue
		}
		if d := distance([]rune(plain), []rune(plainWord(k))); d < best {
			best, found = d, k
		}
	}
	return found
}

// maxNearest bounds the work for hostile words.
const maxNearest = 128

// DidYouMean returns the hint `did you mean "x"?` with the known word nearest
// to word. When none is near it lists the known words, or returns "" when they
// are too many to read.
func DidYouMean(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return `did you mean "` + near + `"?`
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	return "known: " + strings.Join(known, ", ")
}

func plainWord(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance is the number of edits between two words, where swapping two
// neighbours is one edit.
func distance(a, b []rune) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
