package instances

import (
	"bytes"
	"fmt"
	"os"
)

// started returns the boot that a process belongs to and the clock ticks from
// there to its start. It is not known when /proc does not tell.
func started(pid int) (when string, known bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", os.IsNotExist(err) && hasProc()
	}
	// The name of the program is the second field, in brackets, and may hold
	// anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 19
	if len(fields) <= start {
		return "", false
	}
	if s := string(fields[state]); s == "Z" || s == "X" {
		return "ended", true
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // the ticks must do
	}
	return string(bytes.TrimSpace(boot)) + "/" + string(fields[start]), true
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}
