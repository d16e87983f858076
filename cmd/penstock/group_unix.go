//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// inOwnGroup makes the command the head of a process group, which everything
// that it starts belongs to.
func inOwnGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// signalGroup sends a signal to everything in the group of a process.
func signalGroup(head *os.Process, s syscall.Signal) error { return syscall.Kill(-head.Pid, s) }
