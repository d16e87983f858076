package services

import "fmt"

// rabbitmq has a name server of its own (epmd), a node name and a cookie of its
// own, so that it meets no other Erlang on the machine.
func rabbitmq() recipe {
	server := program("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin")
	epmd := program("epmd", "erlang-base")
	return recipe{name: "rabbitmq", ports: 3, tools: []tool{server, epmd}, version: rabbitVersion, lay: func(s *Server) error {
		s.Addr = "amqp://guest:guest@" + s.at(0) + "/"
		// The protocol's header is answered with a method frame.
		n := s.node(0, hears("AMQP\x00\x00\x09\x01", "\x01"), server.found(), "-noinput")
		n.env = []string{
			"HOME=" + s.dir, // for the cookie
			fmt.Sprintf("ERL_EPMD_PORT=%d", s.ports[1]),
			fmt.Sprintf("RABBITMQ_DIST_PORT=%d", s.ports[2]),
			fmt.Sprintf("RABBITMQ_NODENAME=penstock%d@localhost", s.ports[0]),
			"RABBITMQ_MNESIA_BASE=" + s.path("mnesia"),
			"RABBITMQ_LOG_BASE=" + s.path("log"),
			"RABBITMQ_LOGS=-",
			"RABBITMQ_PID_FILE=" + s.path("pid"),
			"RABBITMQ_CONFIG_FILE=" + s.path("rabbitmq"),
			"RABBITMQ_CONF_ENV_FILE=" + s.path("none"),
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + s.path("plugins"),
			// The script becomes Erlang then, instead of waiting for it.
			"RABBITMQ_ALLOW_INPUT=1",
		}
		s.aside = &Node{
			Addr: s.at(1), command: []string{epmd.found(), "-port", fmt.Sprint(s.ports[1]), "-address", "127.0.0.1"},
			term: s.term, ready: hears("", ""), log: s.path("log-epmd"),
		}
		if err := s.write("[].\n", "plugins"); err != nil {
			return err
		}
		return s.write(fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
loopback_users = none
disk_free_limit.absolute = 50MB
`, s.ports[0]), "rabbitmq.conf")
	}}
}

func rabbitVersion() string {
	return version3(look("rabbitmq_server-*", []string{"/usr/lib/rabbitmq/lib"}))
}
