package services

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// What Debian does not package comes from the registries of Python, Java and Go
// into a cache folder, each in a folder that is named after the sum of what it
// is made from: a new list makes a new folder.

//go:embed requirements.txt kafka/pom.xml kafka/jars.sha256 cassandra/pom.xml cassandra/jars.sha256 zipkin/pom.xml zipkin/jars.sha256 azurite/package.json azurite/package-lock.json ferretdb/*.txt vault/*.txt
var lists embed.FS

// cache is the folder of what was installed: PENSTOCK_SERVICES_CACHE, else
// penstock/services in the user's cache folder.
func cache() string {
	if dir := os.Getenv("PENSTOCK_SERVICES_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "penstock", "services")
}

// list reads one of the lists; they are part of the program.
func list(name string) string {
	text, err := lists.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func folder(prefix, from string) string { return folderOf(prefix, list(from)) }

func folderOf(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	return filepath.Join(cache(), prefix+"-"+hex.EncodeToString(sum[:6]))
}

// ready is the file that says that a folder of the cache is complete.
const ready = "complete"

func complete(dir, what string) string {
	if _, err := os.Stat(filepath.Join(dir, ready)); err != nil {
		return ""
	}
	return filepath.Join(dir, what)
}

// python is a Python that has the packages of requirements.txt.
func python() tool {
	return tool{name: "a Python with moto and aiosmtpd", cached: true, found: func() string {
		return complete(folder("python", "requirements.txt"), "bin/python")
	}}
}

// kafkaJars is the folder of the jars of kafka/pom.xml, the others those of the
// other servers'.
func kafkaJars() tool     { return jars("kafka", "Kafka's jars") }
func cassandraJars() tool { return jars("cassandra", "Cassandra's jars") }
func zipkinJars() tool    { return jars("zipkin", "Zipkin's jar") }

func jars(server, name string) tool {
	return tool{name: name, cached: true, found: func() string {
		return complete(folder(server, server+"/jars.sha256"), "jars")
	}}
}

// pinned reads a package's version from requirements.txt.
func pinned(pkg string) func() string {
	return func() string {
		return regexp.MustCompile(`(?m)^` + pkg + `==([\w.]+)`).FindStringSubmatch(list("requirements.txt"))[1]
	}
}

func kafkaVersion() string {
	return regexp.MustCompile(`kafka_2\.13-([\d.]+)\.jar`).FindStringSubmatch(list("kafka/jars.sha256"))[1]
}

func cassandraVersion() string {
	return regexp.MustCompile(`cassandra-all-([\d.]+)\.jar`).FindStringSubmatch(list("cassandra/jars.sha256"))[1]
}

func zipkinVersion() string {
	return regexp.MustCompile(`zipkin-server-([\d.]+)-exec\.jar`).FindStringSubmatch(list("zipkin/jars.sha256"))[1]
}

// makePython makes the virtual environment.
func makePython(ctx context.Context, say func(string)) error {
	dir := folder("python", "requirements.txt")
	wants := filepath.Join(dir, "requirements.txt")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := command(ctx, "python3", "-m", "venv", dir); err != nil {
		return err
	}
	if err := os.WriteFile(wants, []byte(list("requirements.txt")), 0o644); err != nil {
		return err
	}
	err := fetch(ctx, say, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet",
		"--disable-pip-version-check", "--require-hashes", "-r", wants)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ready), nil, 0o644)
}

// fetchJars makes a function that lets Maven fetch the jars of a server and
// compares each with its sum.
func fetchJars(server string) func(context.Context, func(string)) error {
	return func(ctx context.Context, say func(string)) error { return maven(ctx, say, server) }
}

func maven(ctx context.Context, say func(string), server string) error {
	sums := server + "/jars.sha256"
	dir := folder(server, sums)
	pom, jars := filepath.Join(dir, "pom.xml"), filepath.Join(dir, "jars")
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.WriteFile(pom, []byte(list(server+"/pom.xml")), 0o644))
	if err != nil {
		return err
	}
	err = fetch(ctx, say, "mvn", "-q", "-B", "-f", pom,
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory="+jars)
	if err != nil {
		return err
	}
	if err := verify(jars, list(sums)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ready), nil, 0o644)
}

// verify compares the files of a folder with lines of "sum  name": no file may
// differ, be missing, or be there besides.
func verify(dir, sums string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	lines := strings.Fields(sums)
	if len(lines) != 2*len(entries) {
		return fmt.Errorf("check %s: %d files, not %d", dir, len(entries), len(lines)/2)
	}
	for i := 0; i < len(lines); i += 2 {
		data, err := os.ReadFile(filepath.Join(dir, lines[i+1]))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != lines[i] {
			return fmt.Errorf("check %s: the sum is %x, not %s", lines[i+1], sum, lines[i])
		}
	}
	return nil
}

// What asks the network is tried so often, with longer and longer pauses.
const (
	fetches    = 4
	fetchPause = time.Second
	fetchTime  = 20 * time.Minute // for one try; building Vault is one
)

// fetch is command for a program that asks the network.
func fetch(ctx context.Context, say func(string), name string, args ...string) error {
	for n, pause := 1, fetchPause; ; n, pause = n+1, 8*pause {
		limited, cancel := context.WithTimeout(ctx, fetchTime)
		err := command(limited, name, args...)
		cancel()
		if err == nil || n == fetches || ctx.Err() != nil {
			return err
		}
		say(fmt.Sprintf("try %d of %d failed: %v", n, fetches, err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// command runs a program; an error has what it printed.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	// apt asks questions otherwise, and pip takes other people's settings for its own.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
	}
	return nil
}
