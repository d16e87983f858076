package services

import (
	"fmt"
	"strings"
)

// zookeeper is one server, by Debian's jars without its scripts and its user. It
// takes any number of connections from one machine. It is there when it tells
// its state: a server that only listens says that it does not serve yet.
func zookeeper() recipe {
	java := program("java", "default-jre-headless")
	jar := tool{name: "ZooKeeper's jar", debian: "libzookeeper-java", found: func() string {
		return look("zookeeper.jar", []string{"/usr/share/java"})
	}}
	version := func() string {
		return strings.TrimSuffix(version3(look("zookeeper-[0-9]*.jar", []string{"/usr/share/java"})), ".jar")
	}
	return recipe{name: "zookeeper", ports: 1, tools: []tool{java, jar}, version: version, lay: func(s *Server) error {
		s.Addr = s.at(0)
		conf := s.path("zoo.cfg")
		s.node(0, hears("srvr", "Zookeeper version"), java.found(), "-Xms32m", "-Xmx128m", "-XX:+UseSerialGC",
			"-cp", jar.found(), "org.apache.zookeeper.server.quorum.QuorumPeerMain", conf)
		return s.write(fmt.Sprintf(`tickTime=2000
dataDir=%s
clientPort=%d
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
`, s.path("data"), s.ports[0]), "zoo.cfg")
	}}
}
