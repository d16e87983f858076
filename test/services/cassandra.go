package services

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// cassandra is one node of Apache Cassandra, alone in its ring, by its jars
// without its scripts. It has a write in its log before it confirms it.
func cassandra() recipe {
	java := program("java", "default-jre-headless")
	return recipe{name: "cassandra", ports: 2, tools: []tool{java, cassandraJars()}, version: cassandraVersion, lay: func(s *Server) error {
		s.Addr = s.at(0)
		jars, yaml := cassandraJars().found(), s.path("cassandra.yaml")
		command := append([]string{java.found(), "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, opened()...)
		command = append(command, "-javaagent:"+filepath.Join(jars, "jamm-0.4.0.jar"),
			"-Dlogback.configurationFile="+s.path("logback.xml"), "-Dcassandra.config=file://"+yaml,
			"-Dcassandra.storagedir="+s.path("data"), "-Dcassandra-foreground=yes",
			// It has nobody to wait for.
			"-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.ring_delay_ms=0", "-Dcassandra.superuser_setup_delay_ms=0",
			"-cp", filepath.Join(jars, "*"), "org.apache.cassandra.service.CassandraDaemon")
		// A frame OPTIONS of version 4, and the beginning of the frame SUPPORTED.
		s.node(0, hears("\x04\x00\x00\x00\x05\x00\x00\x00\x00", "\x84\x00\x00\x00\x06"), command...)
		return errors.Join(s.write(logback, "logback.xml"),
			s.write(strings.NewReplacer("DATA", s.path("data"), "NATIVE", fmt.Sprint(s.ports[0]), "STORAGE", fmt.Sprint(s.ports[1])).Replace(node), "cassandra.yaml"))
	}}
}

// opened are the parts of Java 17 that Cassandra's own jvm17-server.options
// opens to it.
func opened() []string {
	args := []string{"-Djdk.attach.allowAttachSelf=true", "-Dio.netty.tryReflectionSetAccessible=true"}
	for part := range strings.FieldsSeq(`java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi
		java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref
		jdk.unsupported/sun.misc jdk.attach/sun.tools.attach`) {
		args = append(args, "--add-exports="+part+"=ALL-UNNAMED")
	}
	for part := range strings.FieldsSeq(`java.lang.module jdk.internal.loader jdk.internal.ref jdk.internal.reflect
		jdk.internal.math jdk.internal.module jdk.internal.util.jar sun.nio.ch java.io java.lang.reflect java.lang java.util`) {
		args = append(args, "--add-opens=java.base/"+part+"=ALL-UNNAMED")
	}
	return append(args, "--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED")
}

const logback = `<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
`

// node is the configuration, with the folder and the two ports to put in.
const node = `cluster_name: penstock
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [DATA/data]
commitlog_directory: DATA/commitlog
saved_caches_directory: DATA/caches
hints_directory: DATA/hints
cdc_raw_directory: DATA/cdc
commitlog_sync: batch
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "127.0.0.1:STORAGE"
listen_address: 127.0.0.1
storage_port: STORAGE
rpc_address: 127.0.0.1
native_transport_port: NATIVE
endpoint_snitch: SimpleSnitch
auto_bootstrap: false
auto_snapshot: false
concurrent_reads: 8
concurrent_writes: 8
`
