// Package dashboards holds the dashboards of docs/dashboards against a running
// Penstock.
//
// Each metric that a query names must be in a scrape of an instance that does all
// there is to count; with the tag services a real Prometheus scrapes it, and each
// query must return something.
package dashboards
