package services

import (
	"context"
	"fmt"
	"strings"
	"syscall"
)

// The servers that need a line or two each.

// redis keeps every write in its append-only file before it answers, so that
// what it confirmed is there after a kill.
func redis() recipe {
	server := program("redis-server", "redis-server")
	return recipe{name: "redis", ports: 1, tools: []tool{server}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = s.at(0)
		s.node(0, hears("PING\r\n", "+PONG"), server.found(),
			"--bind", "127.0.0.1", "--port", fmt.Sprint(s.ports[0]), "--dir", s.dir, "--appendonly", "yes", "--save", "")
		return nil
	}}
}

// nats runs with JetStream. Its second port is the monitor, which says when
// JetStream has recovered.
func nats() recipe {
	server := program("nats-server", "nats-server")
	return recipe{name: "nats", ports: 2, tools: []tool{server}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = "nats://" + s.at(0)
		n := s.node(0, nil, server.found(), "-js", "-sd", s.path("data"),
			"-a", "127.0.0.1", "-p", fmt.Sprint(s.ports[0]), "-m", fmt.Sprint(s.ports[1]))
		n.ready = func(ctx context.Context, _ string) error { return serves("/healthz")(ctx, s.at(1)) }
		return nil
	}}
}

// mqtt queues without a limit, since Mosquitto's own limit of 1,000 messages
// drops what is above it in silence. It writes its state once a second and when
// it is stopped: what it took in the last second is gone after a kill.
func mqtt() recipe {
	server := program("mosquitto", "mosquitto")
	return recipe{name: "mqtt", ports: 1, tools: []tool{server}, version: says(server, "-h"), lay: func(s *Server) error {
		s.Addr = "mqtt://" + s.at(0)
		conf := s.path("mosquitto.conf")
		// An MQTT 3.1.1 CONNECT without a client id, and the beginning of its answer.
		connect := "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
		s.node(0, hears(connect, "\x20\x02\x00\x00"), server.found(), "-c", conf)
		return s.write(fmt.Sprintf(`listener %d 127.0.0.1
user %s
allow_anonymous true
persistence true
persistence_location %s/
autosave_interval 1
max_queued_messages 0
`, s.ports[0], asUser(), s.dir), "mosquitto.conf")
	}}
}

func memcached() recipe {
	server := program("memcached", "memcached")
	return recipe{name: "memcached", ports: 1, tools: []tool{server}, version: says(server, "-h"), lay: func(s *Server) error {
		s.Addr = s.at(0)
		s.node(0, hears("version\r\n", "VERSION"), server.found(), "-l", "127.0.0.1", "-p", fmt.Sprint(s.ports[0]), "-u", asUser())
		return nil
	}}
}

func etcd() recipe {
	server := program("etcd", "etcd-server")
	return recipe{name: "etcd", ports: 2, tools: []tool{server}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = s.at(0)
		peer := "http://" + s.at(1)
		s.node(0, serves("/health"), server.found(), "--data-dir", s.path("data"),
			"--listen-client-urls", "http://"+s.at(0), "--advertise-client-urls", "http://"+s.at(0),
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
		return nil
	}}
}

// mysql is MariaDB; a user "root" without a password, and a database "test".
func mysql() recipe {
	server := program("mariadbd", "mariadb-server")
	install := program("mariadb-install-db", "mariadb-server")
	return recipe{name: "mysql", ports: 1, tools: []tool{server, install}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = "root@tcp(" + s.at(0) + ")/test"
		s.node(0, talk("", 5, greeting), server.found(), "--no-defaults", "--datadir="+s.path("data"), "--user="+asUser(),
			"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", s.ports[0]), "--socket="+s.path("sock"), "--init-file="+s.path("init.sql"))
		if err := s.write("CREATE DATABASE IF NOT EXISTS test;\n", "init.sql"); err != nil {
			return err
		}
		return s.run("", install.found(), "--no-defaults", "--datadir="+s.path("data"), "--user="+asUser(),
			"--auth-root-authentication-method=normal", "--skip-test-db")
	}}
}

// greeting is right when it names protocol 10 after its length: a server that
// has too many connections says something else.
func greeting(s string) bool { return s[4] == 10 }

// postgres must not run as root: it runs as Debian's user of that name then.
// Every connection is trusted.
func postgres() recipe {
	const debian = "/usr/lib/postgresql/*/bin"
	server, initdb := program("postgres", "postgresql", debian), program("initdb", "postgresql", debian)
	return recipe{name: "postgres", ports: 1, tools: []tool{server, initdb}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = "postgres://postgres@" + s.at(0) + "/postgres"
		// A start packet of protocol 3; R asks for, or grants, authentication.
		hello := "\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
		s.term = syscall.SIGINT // SIGTERM would wait for the clients to go
		n := s.node(0, hears(hello, "R\x00\x00\x00\x08\x00\x00\x00\x00"), server.found(), "-D", s.path("data"), "-p", fmt.Sprint(s.ports[0]),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "wal_level=logical")
		n.user = "postgres"
		if err := s.give(n.user); err != nil {
			return err
		}
		return s.run(n.user, initdb.found(), "-D", s.path("data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	}}
}

// version3 reads a version out of a path, as /usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8.
func version3(path string) string { return path[strings.LastIndexByte(path, '-')+1:] }
