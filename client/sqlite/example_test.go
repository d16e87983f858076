package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "penstock")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	db, err := sqlite.Open(ctx, component.Env{DataDir: dir}, "")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx, "example", "CREATE TABLE visits (name TEXT PRIMARY KEY, times INTEGER NOT NULL)"); err != nil {
		panic(err)
	}
	visit := func(name string) error {
		return db.Write(ctx, func(tx *sql.Tx) error {
			st, err := db.Stmt(tx, "INSERT INTO visits VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET times = times + 1")
			if err != nil {
				return err
			}
			_, err = st.Exec(name)
			return err
		})
	}
	fmt.Println(visit("ada"), visit("ada"))
	var times int
	if err := db.Read().QueryRow("SELECT times FROM visits WHERE name = 'ada'").Scan(&times); err != nil {
		panic(err)
	}
	fmt.Println(times)
	// Output:
	// <nil> <nil>
	// 2
}
