package mongodb

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/penstock-io/penstock/component"
)

type options struct {
	Connection component.Secret `meta:"connectionString" doc:"Address of the servers as a URI; stands for server, host, username, password and params." example:"mongodb://localhost:27017/?replicaSet=rs0"`
	Server     string           `meta:"server" doc:"Name whose DNS records list the servers."`
	Host       string           `meta:"host" doc:"Addresses of the servers, with commas between them." example:"localhost:27017"`
	Username   string           `meta:"username" doc:"User to log in as."`
	Password   component.Secret `meta:"password" doc:"Password of username."`
	Params     string           `meta:"params" doc:"What is put behind the address, with its question mark." example:"?tls=true"`
	Database   string           `meta:"databaseName" default:"daprStore" doc:"The database."`
	Collection string           `meta:"collectionName" default:"daprCollection" doc:"The collection; it is made."`
	Write      string           `meta:"writeconcern" doc:"How many servers must have a change: a number, or majority." example:"majority"`
	Read       string           `meta:"readconcern" enum:"local|majority|available|linearizable|snapshot" default:"local" doc:"How safe what is read must be."`
	Timeout    time.Duration    `meta:"operationTimeout" default:"5s" doc:"How long one operation may take."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	bad := func(option, format string, args ...any) {
		errs = append(errs, component.OptionErrorf(option, format, args...))
	}
	switch {
	case !o.Connection.IsZero():
		if uri := o.Connection.Reveal(); strings.HasPrefix(uri, "mongodb://") {
			if mongooptions.Client().ApplyURI(uri).Validate() != nil {
				bad("connectionString", "is not an address such as mongodb://localhost:27017")
			}
		} else if !strings.HasPrefix(uri, "mongodb+srv://") {
			bad("connectionString", "does not begin with mongodb:// or mongodb+srv://")
		}
	case o.Host == "" && o.Server == "":
		bad("host", "host, server or connectionString is needed")
	case o.Host != "" && o.Server != "":
		bad("host", "cannot be set together with server")
	case o.Host != "" && mongooptions.Client().ApplyURI(o.uri()).Validate() != nil:
		bad("host", "%q with params %q is not an address such as localhost:27017", o.Host, o.Params)
	}
	if o.Database == "" || strings.ContainsAny(o.Database, "/\\. \"$\x00") {
		bad("databaseName", "%q is not the name of a database", o.Database)
	}
	if o.Collection == "" || strings.ContainsAny(o.Collection, "$\x00") {
		bad("collectionName", "%q is not the name of a collection", o.Collection)
	}
	if _, err := o.writeConcern(); err != nil {
		errs = append(errs, err)
	}
	if o.Timeout <= 0 {
		bad("operationTimeout", "must be more than nothing")
	}
	return errors.Join(errs...)
}

// uri is the address of the servers.
func (o options) uri() string {
	if !o.Connection.IsZero() {
		return o.Connection.Reveal()
	}
	scheme, host := "mongodb://", o.Host
	if o.Server != "" {
		scheme, host = "mongodb+srv://", o.Server
	}
	if o.Username != "" && !o.Password.IsZero() {
		return scheme + url.UserPassword(o.Username, o.Password.Reveal()).String() + "@" + host + "/" + o.Database + o.Params
	}
	return scheme + host + "/" + o.Database + o.Params
}

func (o options) writeConcern() (*writeconcern.WriteConcern, error) {
	journal := true
	switch o.Write {
	case "":
		return &writeconcern.WriteConcern{W: 1, Journal: &journal}, nil
	case "majority":
		return &writeconcern.WriteConcern{W: "majority", Journal: &journal}, nil
	}
	n, err := strconv.Atoi(o.Write)
	if err != nil || n < 1 || n > 50 {
		return nil, component.OptionErrorf("writeconcern", "%q is neither majority nor a number of servers from 1", o.Write)
	}
	return &writeconcern.WriteConcern{W: n, Journal: &journal}, nil
}
