//go:build services

package crash

import (
	"testing"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestCronKillOnPostgres(t *testing.T) {
	server, schema := schemaInPostgres(t)
	cronKill(t, lockStore("lock.postgresql", "connectionString", server, "tableName", schema+".locks"))
}

func TestCronKillOnRedis(t *testing.T) {
	cronKill(t, lockStore("lock.redis", "redisHost", services.Need(t, "redis"), "keyPrefix", conform.Unique(t)))
}

func TestCronKillOnEtcd(t *testing.T) {
	cronKill(t, lockStore("lock.etcd", "endpoints", services.Need(t, "etcd"), "keyPrefixPath", conform.Unique(t)))
}
