//go:build !unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// inOwnGroup does nothing where there are no process groups.
func inOwnGroup(*exec.Cmd) {}

// signalGroup ends the process itself; other signals are not known here.
func signalGroup(head *os.Process, _ syscall.Signal) error { return head.Kill() }
