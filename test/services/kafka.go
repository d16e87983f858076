package services

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
)

// brokers is how many there are, each with a replica of everything; doors is how
// many a cluster has.
const (
	brokers = 3
	doors   = 4
)

// Door is a way to a broker of Kafka through a proxy: a client that comes by it
// is sent on to Advertised by the brokers, where the one who started the server
// has a proxy that leads to Addr.
type Door struct{ Addr, Advertised string }

// door makes the i-th way to a broker.
func (s *Server) door(broker, i int) Door {
	at := 2*brokers + 2*(doors*broker+i)
	return Door{Addr: s.at(at), Advertised: s.at(at + 1)}
}

// kafka is a cluster of three brokers which are its controllers too. A topic
// that is not there is made when it is used, with three partitions and three
// replicas, of which two must have a record before it is confirmed. A member of a
// group may be given up after a second, so that another takes over in time, and
// a message of 1 MiB is taken with what is around it.
func kafka() recipe {
	java := program("java", "default-jre-headless")
	return recipe{name: "kafka", ports: 2 * brokers * (1 + doors), tools: []tool{java, kafkaJars()}, version: kafkaVersion, lay: func(s *Server) error {
		voters := make([]string, brokers)
		for i := range voters {
			voters[i] = fmt.Sprintf("%d@%s", i+1, s.at(brokers+i))
		}
		if err := s.write(log4j, "log4j.properties"); err != nil {
			return err
		}
		addrs := make([]string, brokers)
		s.Doors = make([][]Door, doors)
		for i := range addrs {
			addrs[i] = s.at(i)
			name := fmt.Sprint(i + 1)
			text := fmt.Sprintf(broker, i+1, strings.Join(voters, ","), s.path(name, "data")) + s.listeners(i)
			err := errors.Join(
				s.write(text, name, "broker.properties"),
				// What kafka-storage.sh would write, without a Java of its own.
				s.write(fmt.Sprintf("version=1\ncluster.id=cGVuc3RvY2stdGVzdC0wMA\nnode.id=%d\n", i+1), name, "data", "meta.properties"))
			if err != nil {
				return err
			}
			s.node(i, clustered, java.found(), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC",
				"-Dlog4j.configuration=file:"+s.path("log4j.properties"),
				"-cp", filepath.Join(kafkaJars().found(), "*"), "kafka.Kafka", s.path(name, "broker.properties"))
		}
		s.Addr = strings.Join(addrs, ",")
		return nil
	}}
}

// listeners are the addresses of the i-th broker: its own, the controller's and
// the doors.
func (s *Server) listeners(i int) string {
	own, controller := "PLAINTEXT://"+s.at(i), "CONTROLLER://"+s.at(brokers+i)
	listen, advertise := []string{own, controller}, []string{own}
	kinds := []string{"PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"}
	var threads strings.Builder
	for n := range s.Doors {
		d, name := s.door(i, n), fmt.Sprintf("DOOR%d", n)
		s.Doors[n] = append(s.Doors[n], d)
		listen, advertise = append(listen, name+"://"+d.Addr), append(advertise, name+"://"+d.Advertised)
		kinds = append(kinds, name+":PLAINTEXT")
		threads.WriteString(fmt.Sprintf("listener.name.door%d.num.network.threads=1\n", n))
	}
	return fmt.Sprintf("listeners=%s\nadvertised.listeners=%s\nlistener.security.protocol.map=%s\ninter.broker.listener.name=PLAINTEXT\n%s",
		strings.Join(listen, ","), strings.Join(advertise, ","), strings.Join(kinds, ","), threads.String())
}

const log4j = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c{1} %m%n
`

// broker is the configuration of one but its listeners: number, voters, folder.
const broker = `process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
controller.listener.names=CONTROLLER
log.dirs=%s
auto.create.topics.enable=true
num.partitions=3
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.num.partitions=6
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=3000000
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=8000000
`

// clustered is ready when the broker knows all three: a topic with three
// replicas cannot be made before. It asks with a Metadata request (key 3,
// version 1) for all topics and reads the number of brokers.
func clustered(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if limit, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(limit) // without it the read below waits longer
	}
	ask := []byte{0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	if _, err := conn.Write(ask); err != nil {
		return err
	}
	answer := make([]byte, 12) // size, number of the request, number of brokers
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint32(answer[8:]); n != brokers {
		return fmt.Errorf("%s knows %d of %d brokers", addr, n, brokers)
	}
	return nil
}
