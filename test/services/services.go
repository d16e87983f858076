// Package services starts real servers for tests, as child processes on free
// loopback ports with all they write in a temporary folder, and stops them.
//
// A test of a component asks for a server that is shared by all tests with
// Need, which reads its address from the environment; "make test-services"
// starts the servers, exports their addresses and runs those tests. A test that
// must stop, kill or freeze a server starts its own with Start.
//
// Such tests stand in files named *_services_test.go whose first line is
// "//go:build services", so that "go test ./..." needs nothing but Go.
package services

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// InUse begins the line that Need writes to the test's log, before the server's
// name. The report of "make test-services" counts by it.
const InUse = "server in use: "

// Names lists the servers, those first that start fast.
func Names() []string {
	all := recipes()
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.name
	}
	return names
}

// Variable is the environment variable that holds a server's address:
//
//	PENSTOCK_TEST_REDIS      127.0.0.1:6379
//	PENSTOCK_TEST_NATS       nats://127.0.0.1:4222, with JetStream
//	PENSTOCK_TEST_MQTT       mqtt://127.0.0.1:1883, MQTT 3.1.1 and 5
//	PENSTOCK_TEST_POSTGRES   postgres://postgres@127.0.0.1:5432/postgres
//	PENSTOCK_TEST_MYSQL      root@tcp(127.0.0.1:3306)/test
//	PENSTOCK_TEST_RABBITMQ   amqp://guest:guest@127.0.0.1:5672/
//	PENSTOCK_TEST_ETCD       127.0.0.1:2379
//	PENSTOCK_TEST_MEMCACHED  127.0.0.1:11211
//	PENSTOCK_TEST_KAFKA      three brokers: 127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094
//	PENSTOCK_TEST_AWS        http://127.0.0.1:4566, any key, region us-east-1
//	PENSTOCK_TEST_AZURITE    a connection string, with BlobEndpoint and TableEndpoint
//	PENSTOCK_TEST_ZOOKEEPER  127.0.0.1:2181
//	PENSTOCK_TEST_MONGODB    127.0.0.1:27017, FerretDB
//	PENSTOCK_TEST_CASSANDRA  127.0.0.1:9042
//	PENSTOCK_TEST_ZIPKIN     http://127.0.0.1:9411
//	PENSTOCK_TEST_VAULT      http://127.0.0.1:8200, with the token VaultToken
//	PENSTOCK_TEST_PROMETHEUS http://127.0.0.1:9090?targets=file, which a test writes
//	PENSTOCK_TEST_SFTP       sftp://user@127.0.0.1:2222/folder?key=file&hostkey=file;
//	                         the folder is the server's own path, so a test may look into it
//	PENSTOCK_TEST_SMTP       smtp://penstock:secret@127.0.0.1:2525?maildir=folder&ca=file;
//	                         each mail taken is a file in folder/new with the headers X-MailFrom
//	                         and X-RcptTo added; busy@ is answered 451, gone@ 550
func Variable(name string) string { return "PENSTOCK_TEST_" + strings.ToUpper(name) }

// Need returns the address of the shared server of that name. It fails the test
// when the environment does not name one: a test of a real server that did not
// run must not look as if it had passed.
func Need(t testing.TB, name string) string {
	t.Helper()
	if !slices.Contains(Names(), name) {
		t.Fatalf("no server %q is known; there are %s", name, strings.Join(Names(), ", "))
	}
	addr := os.Getenv(Variable(name))
	if addr == "" {
		t.Fatalf("this test needs %s, and %s is not set: run it through make test-services (docs/testing.md)", name, Variable(name))
	}
	t.Logf("%s%s at %s", InUse, name, addr)
	return addr
}

// Start starts a server for this test alone and waits until it answers; the
// server and its data are gone when the test has ended. The server must be
// installed, as "make test-services" does.
func Start(t testing.TB, name string) *Server {
	t.Helper()
	s, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s%s at %s", InUse, name, s.Addr)
	return s
}
