package services

import "fmt"

// prometheus looks every second at the targets in a file, which a test writes as
// [{"targets": ["127.0.0.1:9090"]}].
func prometheus() recipe {
	server := program("prometheus", "prometheus")
	return recipe{name: "prometheus", ports: 1, tools: []tool{server, program("promtool", "prometheus")}, version: says(server, "--version"), lay: func(s *Server) error {
		s.Addr = "http://" + s.at(0) + "?targets=" + s.path("targets.json")
		s.node(0, serves("/-/ready"), server.found(), "--config.file", s.path("prometheus.yml"), "--storage.tsdb.path", s.path("data"),
			"--web.listen-address", s.at(0), "--log.level", "warn")
		return s.write(fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: penstock\n  file_sd_configs:\n  - files: [%q]\n    refresh_interval: 1s\n",
			s.path("targets.json")), "prometheus.yml")
	}}
}
