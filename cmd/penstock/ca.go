package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"time"

	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/identity/authority"
)

// caCommand is an authority for development.
type caCommand struct {
	Init  caInitCommand  `cmd:"" help:"Make an authority in a folder."`
	Issue caIssueCommand `cmd:"" help:"Issue the identity of an app, in the shape that serve --identity-dir reads."`
}

// caFlags are those of both.
type caFlags struct {
	Dir      string        `name:"dir" default:".penstock/ca" help:"Folder of the authority."`
	Backdate time.Duration `name:"backdate" default:"5m" help:"How long ago validity began, for clocks that are behind."`
}

func (f caFlags) times(lifetime time.Duration) authority.Times {
	return authority.Times{Backdate: f.Backdate, Lifetime: lifetime}
}

type caInitCommand struct {
	caFlags     `embed:""`
	TrustDomain string        `name:"trust-domain" default:"public" help:"Trust domain of everything that is issued; public is the one of access control lists that name none."`
	Lifetime    time.Duration `name:"lifetime" default:"8760h" help:"How long the authority is valid."`
}

// Run makes an authority where there is none.
func (c *caInitCommand) Run(std *stdio) error {
	a, err := authority.New(c.TrustDomain, c.times(c.Lifetime))
	if err != nil {
		return err
	}
	if err := a.Save(c.Dir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "Authority of trust domain %s is in %s. Keep %s secret.\n", c.TrustDomain, c.Dir, filepath.Join(c.Dir, authority.CAKeyFile))
	return err
}

type caIssueCommand struct {
	caFlags   `embed:""`
	AppID     string        `name:"app-id" required:"" help:"App that the identity is for."`
	Namespace string        `name:"namespace" env:"NAMESPACE" help:"Namespace of the app; default when empty."`
	Lifetime  time.Duration `name:"lifetime" default:"24h" help:"How long the identity is valid; issue it again before."`
	Out       string        `name:"out" help:"Folder to write to; default: NAMESPACE/APP-ID in that of the authority."`
}

// Run issues an identity in place of the one that is there.
func (c *caIssueCommand) Run(std *stdio) error {
	a, err := authority.Open(c.Dir)
	if err != nil {
		return err
	}
	namespace := cmp.Or(c.Namespace, identity.DefaultNamespace)
	issued, err := a.Issue(namespace, c.AppID, c.times(c.Lifetime))
	if err != nil {
		return err
	}
	dir := cmp.Or(c.Out, filepath.Join(c.Dir, namespace, c.AppID))
	if err := issued.Save(dir); err != nil {
		return err
	}
	id := identity.ID{TrustDomain: a.TrustDomain(), Namespace: namespace, App: c.AppID}
	_, err = fmt.Fprintf(std.out, "%s is valid until %s. Use it with:\n  penstock serve --app-id %s --identity-dir %s\n",
		id, issued.Certificate.NotAfter.UTC().Format(time.RFC3339), c.AppID, dir)
	return err
}
