package services

// VaultToken is the root token of the Vault of the tests.
const VaultToken = "root"

// hashicorp is Vault in memory, unsealed, with the engine of keys and values at
// secret/ and nothing else enabled.
func hashicorp() recipe {
	version := goVersion("vault", "hashicorp/vault")
	return recipe{name: "vault", ports: 1, tools: []tool{vault()}, version: version, lay: func(s *Server) error {
		s.Addr = "http://" + s.at(0)
		s.node(0, nil, vault().found(), s.at(0), VaultToken).ready = serves("/v1/sys/health")
		return nil
	}}
}
