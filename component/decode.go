package component

import "github.com/penstock-io/penstock/config"

// decode fills o from items and returns every problem.
func decode(typ string, items []config.Item, common []Option, o any) config.Problems {
	panic("being written")
}
