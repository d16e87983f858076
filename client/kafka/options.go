package kafka

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/component"
)

// Options are those that all components on Kafka share. They are embedded in a
// component's own.
type Options struct {
	Brokers      []string         `meta:"brokers,required" doc:"Brokers to start from; the others are learnt from them." example:"kafka-1:9092,kafka-2:9092"`
	ClientID     string           `meta:"clientID"     default:"penstock" doc:"Name that the brokers' logs and quotas know this client by."`
	AuthType     string           `meta:"authType"     enum:"none|password|certificate|mtls|oidc|oidc_private_key_jwt|awsiam" doc:"How to prove who we are: none (plain text), password (SASL), certificate (TLS, the server's only), mtls (client certificate), oidc (SASL OAUTHBEARER with client credentials). All but none use TLS unless disableTls. oidc_private_key_jwt and awsiam are not there yet."`
	AuthRequired string           `meta:"authRequired" enum:"true|false" doc:"Older form of authType: true is password when there is a saslPassword, else mtls."`
	DisableTLS   bool             `meta:"disableTls"   doc:"Plain text although authType is not none."`
	SkipVerify   bool             `meta:"skipVerify"   doc:"Takes any certificate of a broker: for tests only."`
	CACert       string           `meta:"caCert"       doc:"Certificate that the brokers' must be signed with, as PEM or the path of a PEM file; the system's when empty."`
	ClientCert   string           `meta:"clientCert"   doc:"Client certificate, as PEM or the path of a PEM file, with clientKey."`
	ClientKey    component.Secret `meta:"clientKey"    doc:"Key of the client certificate, as PEM or the path of a PEM file."`

	SASLUsername  string           `meta:"saslUsername"  doc:"User of authType password."`
	SASLPassword  component.Secret `meta:"saslPassword"  doc:"Password of authType password."`
	SASLMechanism string           `meta:"saslMechanism" enum:"PLAINTEXT|PLAIN|SHA-256|SHA-512" doc:"SASL mechanism of authType password: PLAINTEXT (the default), SHA-256 or SHA-512 for SCRAM."`

	OIDCTokenEndpoint string           `meta:"oidcTokenEndpoint" doc:"Address that gives access tokens." example:"https://login.example.com/oauth2/token"`
	OIDCClientID      string           `meta:"oidcClientID"      doc:"Client id of authType oidc."`
	OIDCClientSecret  component.Secret `meta:"oidcClientSecret"  doc:"Client secret of authType oidc."`
	OIDCScopes        string           `meta:"oidcScopes"        default:"openid" doc:"Scopes to ask for, with commas between."`
	OIDCExtensions    string           `meta:"oidcExtensions"    doc:"SASL extensions as a JSON object of strings." example:"{\"logicalCluster\":\"lkc-1\"}"`

	DialTimeout     time.Duration     `meta:"dialTimeout"     default:"5s"  doc:"Longest wait for a connection, TLS and SASL included."`
	ReadTimeout     time.Duration     `meta:"readTimeout"     default:"10s" doc:"Longest wait for an answer beyond what the broker was asked to wait."`
	WriteTimeout    time.Duration     `meta:"writeTimeout"    default:"10s" doc:"Longest wait for the confirmation of a produce request, each try."`
	MetadataTimeout component.Ignored `meta:"metadataTimeout" doc:"Looking up a topic waits 5 s, or as long as the caller does."`
	RefreshInterval time.Duration     `meta:"clientConnectionTopicMetadataRefreshInterval" default:"6s" doc:"Longest time until new partitions of a topic are seen; moved leaders are asked for at once. Raise it where a cluster has very many partitions."`
	KeepAlive       time.Duration     `meta:"clientConnectionKeepAliveInterval" doc:"Interval of TCP keep-alives; 0 is the system's."`

	MaxMessageBytes int               `meta:"maxMessageBytes"      default:"0"    doc:"Largest message and batch to write; 0 is 1000000 for a batch and leaves a larger message to the broker, which knows its own limit."`
	RequiredAcks    string            `meta:"producerRequiredAcks" default:"all"  enum:"all|-1|local|one|1|none|0" doc:"Who must have a message before it counts as written: all in-sync replicas, the leader, or nobody. Anything but all can lose messages."`
	RetryMax        int               `meta:"producerRetryMax"     default:"5"    doc:"How often a produce request is sent again, after 50 ms doubling to a second, before it fails with kind unavailable."`
	Compression     string            `meta:"compression"          default:"none" enum:"none|gzip|snappy|lz4|zstd" doc:"Compression of what is written; what is read may have any."`
	ExcludeHeaders  string            `meta:"excludeHeaderMetaRegex" doc:"Request metadata whose names match this are not written as headers." example:"^(ttlInSeconds|rawPayload)$"`
	EscapeHeaders   bool              `meta:"escapeHeaders"        doc:"Keys and header values are read in URL encoding, so that they fit into HTTP headers."`
	Version         component.Ignored `meta:"version"              doc:"What the brokers can do is asked of them."`

	InitialOffset     string            `meta:"initialOffset"     default:"newest" enum:"newest|oldest" doc:"Where a group that never read a topic begins. newest is the end as it is when the subscription is made, whether or not a message can be read at that moment."`
	OutOfRange        string            `meta:"onOffsetOutOfRange" default:"oldest" enum:"oldest|newest|stop" doc:"What to do when the broker no longer has the group's offset: go on with the oldest message there is, with the next new one, or stop with an error. It is logged as an error in any case."`
	SessionTimeout    time.Duration     `meta:"sessionTimeout"    default:"0s"     doc:"After how long without a heartbeat the brokers give a member's partitions to others. 0 is 3s. Where the brokers do not allow so little (group.min.session.timeout.ms), the shortest of 6s, 10s and 30s that they allow, which is logged."`
	HeartbeatInterval time.Duration     `meta:"heartbeatInterval" default:"500ms"  doc:"Interval of heartbeats, and the time until a member hears that another came or went."`
	RebalanceDrain    time.Duration     `meta:"rebalanceDrain"    default:"0s"     doc:"How long what is under way of a partition may still be acknowledged before the partition is given up in a rebalance. 0 is 30s, or 2s with range and roundrobin, where the member reads nothing meanwhile."`
	FetchMin          int               `meta:"consumerFetchMin"  default:"1"      doc:"Bytes that a broker gathers before it answers, for at most fetchMaxWait."`
	FetchMax          int               `meta:"consumerFetchDefault" default:"1048576" doc:"Most bytes of one partition asked for at a time."`
	FetchWait         time.Duration     `meta:"fetchMaxWait"      default:"250ms"  doc:"Longest wait of a broker for consumerFetchMin."`
	MaxUncommitted    int               `meta:"maxUncommitted"    default:"10000"  doc:"Most messages of a partition that are held in memory from the oldest one that is not done. Behind it nothing is read until it is."`
	MaxHeldBytes      component.Size    `meta:"maxUncommittedBytes" default:"32Mi" doc:"The same in bytes, soft by one fetch."`
	CommitInterval    time.Duration     `meta:"commitInterval"    default:"1s"     doc:"How often offsets are committed; what was acknowledged since can come again after a crash."`
	Balance           string            `meta:"consumerGroupRebalanceStrategy" default:"sticky" enum:"sticky|range|roundrobin" doc:"How partitions are shared out. sticky: members keep what they have and read on, and a partition that moves is finished first. range and roundrobin: all members stop in every rebalance. A group with members that do not know sticky, such as Dapr's, uses what all know."`
	RetryEnabled      component.Ignored `meta:"consumeRetryEnabled"  doc:"A message that failed is always tried again; see resiliency for how often and how fast."`
	RetryInterval     component.Ignored `meta:"consumeRetryInterval" doc:"See consumeRetryEnabled."`
	ChannelBuffer     component.Ignored `meta:"channelBufferSize"    doc:"One fetch is read ahead; see consumerFetchDefault."`

	SchemaRegistryURL    component.Ignored `meta:"schemaRegistryURL"       doc:"Avro is not there yet: what asks for valueSchemaType Avro is refused."`
	SchemaRegistryKey    component.Ignored `meta:"schemaRegistryAPIKey"    doc:"See schemaRegistryURL."`
	SchemaRegistrySecret component.Ignored `meta:"schemaRegistryAPISecret" doc:"See schemaRegistryURL."`
	SchemaCaching        component.Ignored `meta:"schemaCachingEnabled"    doc:"See schemaRegistryURL."`
	SchemaCacheTTL       component.Ignored `meta:"schemaLatestVersionCacheTTL" doc:"See schemaRegistryURL."`
	UseAvroJSON          component.Ignored `meta:"useAvroJSON"             doc:"See schemaRegistryURL."`
}

// Check implements component.Checker.
func (o Options) Check() error {
	var errs []error
	wrong := func(option, format string, args ...any) {
		errs = append(errs, component.OptionErrorf(option, format, args...))
	}
	for _, b := range o.Brokers {
		if !strings.Contains(b, ":") {
			wrong("brokers", "%q has no port: write host:9092", b)
		}
	}
	for name, d := range map[string]time.Duration{
		"dialTimeout": o.DialTimeout, "readTimeout": o.ReadTimeout, "writeTimeout": o.WriteTimeout, "fetchMaxWait": o.FetchWait,
		"commitInterval": o.CommitInterval, "heartbeatInterval": o.HeartbeatInterval, "clientConnectionTopicMetadataRefreshInterval": o.RefreshInterval,
	} {
		if d < time.Millisecond {
			wrong(name, "must be at least 1ms")
		}
	}
	for name, n := range map[string]int{"consumerFetchMin": o.FetchMin, "consumerFetchDefault": o.FetchMax, "maxUncommitted": o.MaxUncommitted, "maxUncommittedBytes": int(o.MaxHeldBytes)} {
		if n < 1 {
			wrong(name, "must be at least 1")
		}
	}
	if o.SessionTimeout < 0 || o.SessionTimeout > 0 && o.SessionTimeout <= o.HeartbeatInterval {
		wrong("sessionTimeout", "must be longer than heartbeatInterval (%s)", o.HeartbeatInterval)
	}
	if o.RebalanceDrain < 0 || !o.sticky() && o.RebalanceDrain >= rebalanceTimeout-time.Second {
		wrong("rebalanceDrain", "must be less than %s with range and roundrobin", rebalanceTimeout-time.Second)
	}
	if o.RetryMax < 0 || o.MaxMessageBytes < 0 {
		wrong("producerRetryMax", "and maxMessageBytes must be at least 0")
	}
	if _, err := regexp.Compile(o.ExcludeHeaders); err != nil {
		wrong("excludeHeaderMetaRegex", "%v", err)
	}
	return errors.Join(append(errs, o.checkAuth()...)...)
}

func (o *Options) checkAuth() (errs []error) {
	need := func(option, value string) {
		if value == "" {
			errs = append(errs, component.OptionErrorf(option, "is needed for authType %s", o.auth()))
		}
	}
	switch o.auth() {
	case authPassword:
		need("saslUsername", o.SASLUsername)
		need("saslPassword", o.SASLPassword.Reveal())
	case authMTLS:
		need("clientCert", o.ClientCert)
		need("clientKey", o.ClientKey.Reveal())
		if o.DisableTLS {
			errs = append(errs, component.OptionErrorf("disableTls", "cannot be with authType mtls"))
		}
	case authCertificate:
		need("caCert", o.CACert)
	case authOIDC:
		need("oidcTokenEndpoint", o.OIDCTokenEndpoint)
		need("oidcClientID", o.OIDCClientID)
		need("oidcClientSecret", o.OIDCClientSecret.Reveal())
		if _, err := o.extensions(); err != nil {
			errs = append(errs, component.OptionErrorf("oidcExtensions", "%v", err))
		}
	case "oidc_private_key_jwt", "awsiam":
		errs = append(errs, component.OptionErrorf("authType", "%s is not there yet; use one of none, password, certificate, mtls, oidc", o.auth()))
	}
	return errs
}

// The values of authType that do something.
const (
	authNone        = "none"
	authPassword    = "password"
	authCertificate = "certificate"
	authMTLS        = "mtls"
	authOIDC        = "oidc"
)

// auth is how to prove who we are, also when that is said in the older form.
func (o *Options) auth() string {
	switch {
	case o.AuthType != "":
		return strings.ToLower(o.AuthType)
	case o.AuthRequired != "true":
		return authNone
	case !o.SASLPassword.IsZero():
		return authPassword
	}
	return authMTLS
}

// extensions are the SASL extensions of authType oidc.
func (o *Options) extensions() (map[string]string, error) {
	if o.OIDCExtensions == "" {
		return nil, nil
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(o.OIDCExtensions), &all); err != nil {
		return nil, fmt.Errorf("must be a JSON object of strings")
	}
	return all, nil
}

func (o *Options) acks() kafka.RequiredAcks {
	switch o.RequiredAcks {
	case "local", "one", "1":
		return kafka.RequireOne
	case "none", "0":
		return kafka.RequireNone
	}
	return kafka.RequireAll
}

func (o *Options) compression() kafka.Compression {
	switch o.Compression {
	case "gzip":
		return kafka.Gzip
	case "snappy":
		return kafka.Snappy
	case "lz4":
		return kafka.Lz4
	case "zstd":
		return kafka.Zstd
	}
	return 0
}

// sticky tells whether members keep what they have in a rebalance.
func (o *Options) sticky() bool { return o.Balance != "range" && o.Balance != "roundrobin" }

// drain is how long what is under way may take before a partition is given up.
// Where all stop for that it is short.
func (o *Options) drain() time.Duration {
	switch {
	case o.RebalanceDrain > 0:
		return o.RebalanceDrain
	case o.sticky():
		return 30 * time.Second
	}
	return 2 * time.Second
}
