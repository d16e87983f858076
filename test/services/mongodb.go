package services

import "os"

// mongodb is FerretDB: what speaks MongoDB's protocol and keeps documents in
// SQLite. It has no transactions. It is given one command at a time, since its
// own are not atomic.
func mongodb() recipe {
	version := goVersion("ferretdb", "FerretDB/FerretDB")
	return recipe{name: "mongodb", ports: 1, tools: []tool{ferretdb()}, version: version, lay: func(s *Server) error {
		s.Addr = s.at(0)
		// A message {hello: 1, $db: "admin"}, and the numbers that its answer repeats.
		hello := "\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00" +
			"\x1f\x00\x00\x00\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"
		answers := func(got string) bool { return got[8:] == "\x01\x00\x00\x00\xdd\x07\x00\x00" }
		s.node(0, talk(hello, 16, answers), ferretdb().found(), s.at(0), s.path("data"))
		return os.Mkdir(s.path("data"), 0o755)
	}}
}
