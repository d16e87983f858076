package services

import (
	"fmt"
	"path/filepath"
)

// zipkin keeps traces in memory.
func zipkin() recipe {
	java := program("java", "default-jre-headless")
	return recipe{name: "zipkin", ports: 1, tools: []tool{java, zipkinJars()}, version: zipkinVersion, lay: func(s *Server) error {
		s.Addr = "http://" + s.at(0)
		n := s.node(0, nil, java.found(), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC",
			"-Dserver.port="+fmt.Sprint(s.ports[0]), "-Darmeria.ports[0].port="+fmt.Sprint(s.ports[0]), "-Darmeria.ports[0].address=127.0.0.1",
			"-Darmeria.ports[0].protocols=http", "-jar", filepath.Join(zipkinJars().found(), "zipkin-server-"+zipkinVersion()+"-exec.jar"))
		n.ready = serves("/health")
		return nil
	}}
}
