package zookeeper

import (
	"context"
	"errors"
	"strconv"

	"github.com/go-zookeeper/zk"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

const (
	anyVersion = -1
	// tries is how often a change begins anew because an item came or went
	// between looking and changing.
	tries = 20
)

// Apply implements state.Driver.
func (s *store) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, parallel, s.change)
}

// version is that which a node must have.
func version(c *state.Change) (int32, error) {
	if c.ETag == nil {
		return anyVersion, nil
	}
	v, err := strconv.ParseInt(*c.ETag, 10, 32)
	if err != nil || v < 0 {
		return 0, fault.New(fault.Invalid, "read ETag: it is not one of this store's")
	}
	return int32(v), nil
}

// fits refuses what is larger than a request: the server would close the
// connection.
func (s *store) fits(changes []state.Change) error {
	size := 0
	for i := range changes {
		size += len(s.node(changes[i].Key)) + len(changes[i].Value)
		if i > 0 {
			size += 100 // what goes around another change of a transaction
		}
	}
	if size > s.most {
		return fault.New(fault.Invalid, "save: %d bytes are more than the %d that maxBufferSize allows", size, s.most)
	}
	return nil
}

func (s *store) change(ctx context.Context, c *state.Change) error {
	v, err := version(c)
	if err == nil {
		err = s.fits([]state.Change{*c})
	}
	if err != nil {
		return err
	}
	node := s.node(c.Key)
	if c.Delete {
		_, err := ask(ctx, func() (struct{}, error) { return struct{}{}, s.conn.Delete(node, v) })
		if c.ETag == nil && errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return err
	}
	create := func() error {
		_, err := ask(ctx, func() (string, error) { return s.conn.Create(node, c.Value, 0, zk.WorldACL(zk.PermAll)) })
		return err
	}
	if c.ETag == nil && c.FirstWrite {
		return create()
	}
	for range tries {
		_, err = ask(ctx, func() (*zk.Stat, error) { return s.conn.Set(node, c.Value, v) })
		if c.ETag != nil || !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		if err = create(); !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return err
}

// Transact implements state.Transactor. ZooKeeper has no operation that saves
// whether an item is there or not, so that is looked up first; when it was
// different in the end, all begins anew.
func (s *store) Transact(ctx context.Context, changes []state.Change) error {
	changes, err := state.Final(changes)
	if err == nil {
		err = s.fits(changes)
	}
	if err != nil {
		return err
	}
	for range tries {
		var again bool
		if again, err = s.transact(ctx, changes); !again {
			return err
		}
	}
	return fault.New(fault.Unavailable, "transaction: the items come and go too fast (%w)", err)
}

func (s *store) transact(ctx context.Context, changes []state.Change) (again bool, err error) {
	there := make([]bool, len(changes))
	errs := make([]error, len(changes))
	state.Each(ctx, len(changes), parallel, func(ctx context.Context, i int) {
		there[i], errs[i] = ask(ctx, func() (bool, error) {
			there, _, err := s.conn.Exists(s.node(changes[i].Key))
			return there, err
		})
	})
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	var ops []any
	conditional := map[int]bool{} // operations that stand for a condition of the change
	for i := range changes {
		c := &changes[i]
		v, err := version(c)
		if err != nil {
			return false, err
		}
		if c.ETag != nil || c.FirstWrite {
			conditional[len(ops)] = true
		}
		ops = append(ops, s.operations(c, v, there[i])...)
	}
	answers, err := ask(ctx, func() ([]zk.MultiResponse, error) { return s.conn.Multi(ops...) })
	if err == nil {
		return false, nil
	}
	for i, a := range answers {
		if failed := a.Error; errors.Is(failed, zk.ErrNoNode) || errors.Is(failed, zk.ErrNodeExists) {
			return !conditional[i], err
		}
	}
	return false, err
}

// operations are those of one change of an item that was there, or not. What is
// to be deleted and is not there is made and deleted: so the transaction fails
// when it is there after all.
func (s *store) operations(c *state.Change, v int32, there bool) []any {
	node := s.node(c.Key)
	create := &zk.CreateRequest{Path: node, Data: c.Value, Acl: zk.WorldACL(zk.PermAll)}
	switch {
	case c.Delete && (c.FirstWrite || !there && c.ETag == nil):
		return []any{create, &zk.DeleteRequest{Path: node, Version: anyVersion}}
	case c.Delete:
		return []any{&zk.DeleteRequest{Path: node, Version: v}}
	case c.FirstWrite || !there && c.ETag == nil:
		return []any{create}
	}
	return []any{&zk.SetDataRequest{Path: node, Data: c.Value, Version: v}}
}
