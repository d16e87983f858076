// Package all lists the components of the build.
//
// A component is in the binary when, and only when, it stands here: there is
// no registration anywhere else. Tests and small builds make lists of their
// own. Pluggable components, which live in programs of their own, are found by
// [Finder].
//
// The list promises nothing about order; names are unique, which a test holds.
package all

import (
	"slices"

	"github.com/penstock-io/penstock/bindings/aws/dynamodb"
	"github.com/penstock-io/penstock/bindings/aws/kinesis"
	"github.com/penstock-io/penstock/bindings/aws/s3"
	"github.com/penstock-io/penstock/bindings/aws/sns"
	"github.com/penstock-io/penstock/bindings/aws/sqs"
	"github.com/penstock-io/penstock/bindings/cron"
	"github.com/penstock-io/penstock/bindings/exec"
	"github.com/penstock-io/penstock/bindings/file"
	"github.com/penstock-io/penstock/bindings/graphql"
	"github.com/penstock-io/penstock/bindings/http"
	kafkabinding "github.com/penstock-io/penstock/bindings/kafka"
	"github.com/penstock-io/penstock/bindings/localstorage"
	mqttbinding "github.com/penstock-io/penstock/bindings/mqtt"
	mysqlbinding "github.com/penstock-io/penstock/bindings/mysql"
	natsbinding "github.com/penstock-io/penstock/bindings/nats"
	postgresbinding "github.com/penstock-io/penstock/bindings/postgres"
	rabbitmqbinding "github.com/penstock-io/penstock/bindings/rabbitmq"
	redisbinding "github.com/penstock-io/penstock/bindings/redis"
	"github.com/penstock-io/penstock/bindings/sftp"
	"github.com/penstock-io/penstock/bindings/smtp"
	sqlitebinding "github.com/penstock-io/penstock/bindings/sqlite"
	"github.com/penstock-io/penstock/bindings/webhook"
	"github.com/penstock-io/penstock/component"
	etcdconfiguration "github.com/penstock-io/penstock/configuration/etcd"
	fileconfiguration "github.com/penstock-io/penstock/configuration/file"
	postgresconfiguration "github.com/penstock-io/penstock/configuration/postgres"
	redisconfiguration "github.com/penstock-io/penstock/configuration/redis"
	"github.com/penstock-io/penstock/crypto/jwks"
	keysfolder "github.com/penstock-io/penstock/crypto/localstorage"
	"github.com/penstock-io/penstock/invoke/names/consul"
	filenames "github.com/penstock-io/penstock/invoke/names/file"
	kubernetesnames "github.com/penstock-io/penstock/invoke/names/kubernetes"
	"github.com/penstock-io/penstock/invoke/names/mdns"
	"github.com/penstock-io/penstock/invoke/names/nameformat"
	sqlitenames "github.com/penstock-io/penstock/invoke/names/sqlite"
	etcdlock "github.com/penstock-io/penstock/lock/etcd"
	postgreslock "github.com/penstock-io/penstock/lock/postgres"
	redislock "github.com/penstock-io/penstock/lock/redis"
	sqlitelock "github.com/penstock-io/penstock/lock/sqlite"
	"github.com/penstock-io/penstock/middleware/bearer"
	"github.com/penstock-io/penstock/middleware/oauth2"
	"github.com/penstock-io/penstock/middleware/oauth2clientcredentials"
	"github.com/penstock-io/penstock/middleware/ratelimit"
	"github.com/penstock-io/penstock/middleware/routeralias"
	"github.com/penstock-io/penstock/middleware/routerchecker"
	"github.com/penstock-io/penstock/middleware/uppercase"
	"github.com/penstock-io/penstock/middleware/wasm"
	"github.com/penstock-io/penstock/pluggable"
	"github.com/penstock-io/penstock/pubsub/inmemory"
	"github.com/penstock-io/penstock/pubsub/jetstream"
	kafkapubsub "github.com/penstock-io/penstock/pubsub/kafka"
	mqttpubsub "github.com/penstock-io/penstock/pubsub/mqtt"
	postgrespubsub "github.com/penstock-io/penstock/pubsub/postgres"
	rabbitmqpubsub "github.com/penstock-io/penstock/pubsub/rabbitmq"
	redispubsub "github.com/penstock-io/penstock/pubsub/redis"
	"github.com/penstock-io/penstock/pubsub/snssqs"
	sqlitepubsub "github.com/penstock-io/penstock/pubsub/sqlite"
	"github.com/penstock-io/penstock/secrets/aws/parameterstore"
	"github.com/penstock-io/penstock/secrets/aws/secretsmanager"
	envsecrets "github.com/penstock-io/penstock/secrets/env"
	filesecrets "github.com/penstock-io/penstock/secrets/file"
	"github.com/penstock-io/penstock/secrets/kubernetes"
	"github.com/penstock-io/penstock/secrets/vault"
	dynamodbstate "github.com/penstock-io/penstock/state/aws/dynamodb"
	"github.com/penstock-io/penstock/state/azure/blobstorage"
	"github.com/penstock-io/penstock/state/azure/tablestorage"
	"github.com/penstock-io/penstock/state/cassandra"
	"github.com/penstock-io/penstock/state/etcd"
	inmemorystate "github.com/penstock-io/penstock/state/inmemory"
	jetstreamstate "github.com/penstock-io/penstock/state/jetstream"
	"github.com/penstock-io/penstock/state/memcached"
	"github.com/penstock-io/penstock/state/mongodb"
	mysqlstate "github.com/penstock-io/penstock/state/mysql"
	postgresstate "github.com/penstock-io/penstock/state/postgres"
	redisstate "github.com/penstock-io/penstock/state/redis"
	sqlitestate "github.com/penstock-io/penstock/state/sqlite"
	"github.com/penstock-io/penstock/state/zookeeper"
)

// Components returns every component of the build.
func Components() component.List {
	return slices.Concat(bindings(), brokers(), stores(), middlewares(), resolvers())
}

func bindings() component.List {
	return component.List{
		dynamodb.Component,
		kinesis.Component,
		s3.Component,
		sns.Component,
		sqs.Component,
		cron.Component,
		exec.Component,
		file.Component,
		graphql.Component,
		http.Component,
		kafkabinding.Component,
		localstorage.Component,
		mysqlbinding.Component,
		natsbinding.Component,
		mqttbinding.Component,
		rabbitmqbinding.Component,
		redisbinding.Component,
		postgresbinding.Component,
		sqlitebinding.Component,
		sftp.Component,
		smtp.Component,
		webhook.Component,
	}
}

func brokers() component.List {
	return component.List{
		snssqs.Component,
		inmemory.Component,
		jetstream.Component,
		postgrespubsub.Component,
		redispubsub.Component,
		rabbitmqpubsub.Component,
		kafkapubsub.Component,
		mqttpubsub.Component3,
		mqttpubsub.Component5,
		sqlitepubsub.Component,
	}
}

// stores are what apps keep things in: state, secrets, configuration, locks,
// keys.
func stores() component.List {
	return component.List{
		dynamodbstate.Component,
		blobstorage.Component,
		tablestorage.Component,
		etcd.Component,
		inmemorystate.Component,
		sqlitestate.Component,
		jetstreamstate.Component,
		memcached.Component,
		zookeeper.Component,
		redisstate.Component,
		postgresstate.Component,
		mysqlstate.Component,
		mongodb.Component,
		cassandra.Component,

		envsecrets.Component,
		filesecrets.Component,
		vault.Component,
		kubernetes.Component,
		secretsmanager.Component,
		parameterstore.Component,

		etcdconfiguration.Component,
		fileconfiguration.Component,
		postgresconfiguration.Component,
		redisconfiguration.Component,
		etcdlock.Component,
		postgreslock.Component,
		redislock.Component,
		sqlitelock.Component,

		jwks.Component,
		keysfolder.Component,
	}
}

func middlewares() component.List {
	return component.List{
		bearer.Component,
		oauth2.Component,
		oauth2clientcredentials.Component,
		ratelimit.Component,
		routeralias.Component,
		routerchecker.Component,
		uppercase.Component,
		wasm.Component,
	}
}

// resolvers find other apps.
func resolvers() component.List {
	return component.List{
		mdns.Component,
		sqlitenames.Component,
		kubernetesnames.Component,
		nameformat.Component,
		consul.Component,
		filenames.Component,
	}
}

// Finder finds the components of the build and, when an environment variable
// names their folder or they are in the usual one, pluggable ones.
func Finder(env func(string) (string, bool)) component.Finder {
	folder, _ := env(pluggable.FolderVariable)
	return pluggable.New(Components(), folder)
}
