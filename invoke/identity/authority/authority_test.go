package authority_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/identity/authority"
)

func TestAnAuthorityIsKeptInAFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := authority.Open(dir); fault.KindOf(err) != fault.NotFound {
		t.Errorf("there is none, yet: %v", err)
	}
	made, err := authority.New("example.org", authority.Times{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := made.Save(dir); fault.KindOf(err) != fault.Conflict {
		t.Errorf("it writes over another: %v", err)
	}
	a, err := authority.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Issue("shop", "orders", authority.Times{Lifetime: 2 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if end := a.Certificate().NotAfter; !issued.Certificate.NotAfter.Equal(end) {
		t.Errorf("it ends at %s, its authority at %s", issued.Certificate.NotAfter, end)
	}
	if err := issued.Save(filepath.Join(dir, "shop", "orders")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(identity.ID{TrustDomain: "public", Namespace: "shop", App: "orders"}, issued.Key.Public(), authority.Times{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("it signs for another trust domain: %v", err)
	}
	if _, err := a.Issue("shop", "*", authority.Times{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("it signs for every app: %v", err)
	}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := authority.New("No Domain", authority.Times{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a domain with a space: %v", err)
	}
}
