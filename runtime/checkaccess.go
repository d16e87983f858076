package runtime

import (
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/invoke/access"
)

// access checks the paths of access control. One that no call can have would deny
// nothing.
func (c *checker) access(a config.AccessControl) {
	for _, p := range a.Policies {
		for _, o := range p.Operations {
			if err := access.Pattern(o.Path); err != nil && o.Path != "" {
				c.add(o.Place, "write the path as the app sees it, without escapes", "access control of app %s: %v", p.App, err)
			}
		}
	}
}
