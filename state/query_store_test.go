package state_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/state"
)

// finder answers every query with the same page.
type finder struct{ *table }

func (finder) Query(context.Context, state.Query, map[string]string) (state.Page, error) {
	return state.Page{Keys: []string{"shop||a", "other||b", "c"}, Items: make([]state.Item, 3), Token: "next"}, nil
}

func TestStoreQuery(t *testing.T) {
	t.Parallel()
	key := secret("primaryEncryptionKey", "k", "00112233445566778899aabbccddeeff")
	query := func(d state.Driver, items ...config.Item) (state.Page, error) {
		s, err := open(t, d, component.Env{AppID: "shop"}, items...)
		if err != nil {
			t.Fatal(err)
		}
		return s.Query(t.Context(), state.Query{}, nil)
	}
	page, err := query(finder{newTable()})
	if diff := cmp.Diff([]string{"a", "b", "c"}, page.Keys); diff != "" || err != nil || page.Token != "next" {
		t.Errorf("%+v, %v\n%s", page, err, diff)
	}
	if _, err := query(newTable()); !errors.Is(err, state.ErrNoQueries) {
		t.Errorf("a store without queries: %v", err)
	}
	if _, err := query(finder{newTable()}, key); !errors.Is(err, state.ErrEncrypted) {
		t.Errorf("an encrypted store: %v", err)
	}
}

// tags keeps the ETags of the changes it got.
type tags struct {
	*table
	got []*string
}

func (d *tags) Apply(_ context.Context, changes []state.Change) error {
	for _, c := range changes {
		d.got = append(d.got, c.ETag)
	}
	return nil
}

// TestEmptyETag: an ETag without text is none.
func TestEmptyETag(t *testing.T) {
	t.Parallel()
	d := &tags{table: newTable()}
	s, err := open(t, d, component.Env{AppID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	empty, some := "", "1"
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", ETag: &empty}, {Key: "b", ETag: &some}}); err != nil {
		t.Fatal(err)
	}
	if d.got[0] != nil || d.got[1] == nil || *d.got[1] != "1" {
		t.Errorf("the driver got %v", d.got)
	}
}
