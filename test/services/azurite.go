package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// The account that every Azurite has; its key is public.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

const azuriteLock = "azurite/package-lock.json"

// azuriteModules is the folder of Azurite and what it needs, in the versions of
// the lock file.
func azuriteModules() tool {
	return tool{name: "Azurite", cached: true, found: func() string {
		return complete(folder("azurite", azuriteLock), "node_modules")
	}}
}

func azuriteVersion() string {
	return regexp.MustCompile(`"azurite": "([\d.]+)"`).FindStringSubmatch(list(azuriteLock))[1]
}

// azurite is Microsoft's emulator of Azure Storage; its blobs, queues and tables
// are in memory.
func azurite() recipe {
	node := program("node", "nodejs")
	return recipe{name: "azurite", ports: 3, tools: []tool{node, azuriteModules()}, version: azuriteVersion, lay: func(s *Server) error {
		const name = "devstoreaccount1"
		s.Addr = fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%s;QueueEndpoint=http://%s/%s;TableEndpoint=http://%s/%s;",
			name, azuriteKey, s.at(0), name, s.at(1), name, s.at(2), name)
		n := s.node(0, nil, node.found(), filepath.Join(azuriteModules().found(), "azurite", "dist", "src", "azurite.js"),
			"--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck",
			"--blobPort", fmt.Sprint(s.ports[0]), "--queuePort", fmt.Sprint(s.ports[1]), "--tablePort", fmt.Sprint(s.ports[2]))
		n.ready = func(ctx context.Context, _ string) error {
			for _, i := range []int{0, 2} { // without a signature each says that it serves, and refuses
				if err := hears("GET /"+name+" HTTP/1.0\r\n\r\n", "HTTP/1.1 ")(ctx, s.at(i)); err != nil {
					return err
				}
			}
			return nil
		}
		return nil
	}}
}

// fetchAzurite lets npm fetch what the lock file names, each with its sum, and
// runs no script of it.
func fetchAzurite(ctx context.Context, say func(string)) error {
	dir := folder("azurite", azuriteLock)
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "package.json"), []byte(list("azurite/package.json")), 0o644),
		os.WriteFile(filepath.Join(dir, "package-lock.json"), []byte(list(azuriteLock)), 0o644))
	if err == nil {
		err = fetch(ctx, say, "npm", "ci", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ready), nil, 0o644)
}
