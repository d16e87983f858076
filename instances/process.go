package instances

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Process is a process of this machine. Its number alone does not tell which:
// numbers are used again. The zero value is none.
type Process struct {
	PID int `json:"pid"`
	// Started is when, in a form of the system's; empty where it does not tell.
	Started string `json:"started"`
}

// Of returns the process that has a number now.
func Of(pid int) Process {
	started, _ := started(pid)
	return Process{PID: pid, Started: started}
}

// Alive tells whether the process is still there. One that has ended and waits
// for its parent to notice is not.
func (p Process) Alive() bool {
	if p.PID <= 0 || !exists(p.PID) {
		return false
	}
	now, known := started(p.PID)
	return !known || p.Started == "" || now == p.Started
}

// Stop asks the process to end and waits until it has, at most for the time
// given. That it has ended before is no error.
func (p Process) Stop(ctx context.Context, most time.Duration) error {
	if !p.Alive() {
		return nil
	}
	head, err := os.FindProcess(p.PID)
	if err != nil {
		return fault.Wrap(err, "find process %d", p.PID)
	}
	if err := head.Signal(syscall.SIGTERM); err != nil && p.Alive() {
		return fault.Wrap(err, "stop process %d", p.PID)
	}
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fault.New(fault.Timeout, "stop process %d: it still runs after %v; kill -9 %d ends it", p.PID, most, p.PID)
		case <-ctx.Done():
			return fault.Wrap(ctx.Err(), "stop process %d", p.PID)
		}
	}
	return nil
}
