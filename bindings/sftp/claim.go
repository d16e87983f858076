package sftp

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	client "github.com/penstock-io/penstock/client/sftp"
	"github.com/penstock-io/penstock/fault"
)

// alive is the file that a process writes again and again to show, by the
// server's clock, that the claims beside it are its own.
const alive = ".alive"

// call runs a short piece of work on the server.
func call[T any](ctx context.Context, b *inbox, fn func(*sftp.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return client.Do(ctx, b.client, fn)
}

// act is call for work with nothing to return.
func act(ctx context.Context, b *inbox, fn func(*sftp.Client) error) error {
	_, err := call(ctx, b, func(s *sftp.Client) (struct{}, error) { return struct{}{}, fn(s) })
	return err
}

// claimReady takes files that are stable, as many as there is room for.
func (b *inbox) claimReady(ctx context.Context) error {
	s := &b.scanner
	for len(s.ready) > 0 && !b.full() && ctx.Err() == nil {
		c := s.ready[0]
		s.ready = s.ready[1:]
		if b.busy(c.name) {
			continue
		}
		own, err := b.claims(ctx)
		if err != nil {
			return fault.Wrap(err, "make folder for claims")
		}
		delete(s.seen, c.name)
		if err := b.take(ctx, path.Join(b.folder, c.name), own, c); err != nil {
			return err
		}
	}
	return nil
}

// take moves a file into the folder of this process's claims: of several who try,
// one succeeds.
func (b *inbox) take(ctx context.Context, from, own string, c candidate) error {
	claim := path.Join(own, c.name)
	err := act(ctx, b, func(s *sftp.Client) error { return moveNew(s, from, claim) })
	switch {
	case err == nil:
		b.add(&job{name: c.name, claim: claim, identity: c.identity})
		return nil
	case fault.KindOf(err) == fault.NotFound:
		return nil // another was faster, or the claims are gone: the next beat finds out
	}
	b.mu.Lock()
	b.unsure = true // it may have happened all the same
	b.mu.Unlock()
	return fault.Wrap(err, "claim file %q", c.name)
}

// moveNew renames a file to a name that nobody has.
func moveNew(s *sftp.Client, from, to string) error {
	if _, ok := s.HasExtension(posixRename); ok {
		return s.PosixRename(from, to)
	}
	return s.Rename(from, to)
}

func (b *inbox) add(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[j.name] = j
}

// claims returns the folder of this process's claims, and makes it with the
// first. Under its name it is there with its sign of life or not at all.
func (b *inbox) claims(ctx context.Context) (string, error) {
	b.turn.Lock()
	defer b.turn.Unlock()
	if own := b.owned(); own != "" {
		return own, nil
	}
	owner := strings.ToLower(rand.Text())
	own := path.Join(b.folder, claimsDir, owner)
	err := act(ctx, b, func(s *sftp.Client) error {
		begun := path.Join(b.folder, claimsDir, "."+owner)
		if err := makeFolder(s, b.root, begun); err != nil {
			return err
		}
		if err := beat(s, begun); err != nil {
			return err
		}
		return s.Rename(begun, own)
	})
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own = own
	return own, nil
}

func (b *inbox) owned() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own
}

// beat writes the sign of life.
func beat(s *sftp.Client, own string) error {
	f, err := s.OpenFile(path.Join(own, alive), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("alive\n"))
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// beatLoop shows that this process lives, until ctx ends.
func (b *inbox) beatLoop(ctx context.Context) {
	tick := time.NewTicker(b.options.ClaimTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		own := b.owned()
		if own == "" {
			continue
		}
		err := act(ctx, b, func(s *sftp.Client) error { return beat(s, own) })
		if err != nil && fault.KindOf(err) == fault.NotFound {
			b.evicted(own)
		} else if err != nil && ctx.Err() == nil {
			b.env.Logger.Warn("claims of files cannot be kept alive, trying again", "claim_timeout", b.options.ClaimTimeout, "error", err)
		}
	}
}

// evicted: others have taken what was here, since nothing was heard of this
// process for so long.
func (b *inbox) evicted(own string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.own != own {
		return
	}
	b.own = ""
	lost := 0
	for name, j := range b.jobs {
		if path.Dir(j.claim) == own && j.state != flying {
			delete(b.jobs, name)
			lost++
		}
	}
	b.env.Logger.Warn("claims of files were taken over, since nothing was heard of this process for claimTimeout", "files", lost)
	ring(b.wake)
}

// adopt takes the files that other processes have left behind, and those of this
// one that are not known because a connection broke.
func (b *inbox) adopt(ctx context.Context) error {
	b.mu.Lock()
	unsure, own := b.unsure, b.own
	b.mu.Unlock()
	s := &b.scanner
	if !unsure && time.Since(s.adopted) < b.options.ClaimTimeout/3 {
		return nil
	}
	s.adopted = time.Now()
	owners, err := call(ctx, b, func(s *sftp.Client) (names []string, err error) {
		infos, err := s.ReadDir(path.Join(b.folder, claimsDir))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		for _, info := range infos {
			if info.IsDir() {
				names = append(names, info.Name())
			}
		}
		return names, err
	})
	if err != nil {
		return fault.Wrap(err, "list claims")
	}
	for _, owner := range owners {
		dir := path.Join(b.folder, claimsDir, owner)
		if dir == own {
			err = b.recall(ctx, own)
		} else {
			err = b.inherit(ctx, dir)
		}
		if err != nil && fault.KindOf(err) != fault.NotFound { // others inherit too
			return fault.Wrap(err, "look at claims %s", owner)
		}
	}
	b.mu.Lock()
	b.unsure = false
	b.mu.Unlock()
	return nil
}

// recall makes jobs of claims of this process that have none.
func (b *inbox) recall(ctx context.Context, own string) error {
	files, err := b.listing(ctx, own)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.name != alive && !b.busy(f.name) {
			b.add(&job{name: f.name, claim: path.Join(own, f.name), identity: f.identity})
		}
	}
	return nil
}

// inherit takes the claims of a process that is gone. A folder is removed when
// it is empty.
func (b *inbox) inherit(ctx context.Context, dir string) error {
	orphaned, err := b.orphaned(ctx, dir)
	if err != nil || !orphaned {
		return err
	}
	files, err := b.listing(ctx, dir)
	if err != nil {
		return err
	}
	kept := false
	for _, f := range files {
		if f.name == alive {
			continue
		}
		if b.busy(f.name) || b.full() {
			kept = true // its turn comes
			continue
		}
		own, err := b.claims(ctx)
		if err != nil {
			return err
		}
		b.env.Logger.Info("file taken over from a process that is gone", "file", f.name)
		if err := b.take(ctx, path.Join(dir, f.name), own, f); err != nil {
			return err
		}
	}
	if kept {
		return nil
	}
	return act(ctx, b, func(s *sftp.Client) error { return dropFolder(s, dir) })
}

// orphaned tells whether nobody keeps the claims in a folder: the owner has said
// goodbye, or its last sign of life is older than claimTimeout, compared with
// one of this process.
func (b *inbox) orphaned(ctx context.Context, dir string) (bool, error) {
	own, err := b.claims(ctx)
	if err != nil {
		return false, err
	}
	return call(ctx, b, func(s *sftp.Client) (bool, error) {
		theirs, err := s.Stat(path.Join(dir, alive))
		if errors.Is(err, fs.ErrNotExist) {
			return !strings.HasPrefix(path.Base(dir), "."), nil // else it is just being made
		}
		if err != nil {
			return false, err
		}
		if err := beat(s, own); err != nil {
			return false, err
		}
		ours, err := s.Stat(path.Join(own, alive))
		if err != nil {
			return false, err
		}
		return ours.ModTime().Sub(theirs.ModTime()) > b.options.ClaimTimeout, nil
	})
}

// dropFolder removes a folder of claims without claims.
func dropFolder(s *sftp.Client, dir string) error {
	if err := s.Remove(path.Join(dir, alive)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = s.RemoveDirectory(dir) // somebody may have done so, or put a claim there
	return nil
}
