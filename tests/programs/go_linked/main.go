// main.go - a guest in Go, linked with glue.c through cgo.
package main

// #cgo CFLAGS: -O2
// #include <stddef.h>
// #include <stdint.h>
// extern void program_serve(void);
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"
)

//export program_text
func program_text(input *C.char, to *C.char, size C.size_t) {
	said := append([]byte(strings.ToUpper(C.GoString(input))), 0)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(to)), int(size)), said)
}

// Goroutines that sleep, and whose garbage is collected.
//
//export program_number
func program_number(n C.int32_t) C.int32_t {
	var wait sync.WaitGroup
	sum := make(chan int, int(n))
	for i := 1; i <= int(n); i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			time.Sleep(time.Duration(i) * time.Millisecond)
			sum <- len(strings.Repeat("x", i*1000)) / 1000
		}(i)
	}
	wait.Wait()
	close(sum)
	runtime.GC()
	total := 0
	for s := range sum {
		total += s
	}
	return C.int32_t(total)
}

func main() {
	runtime.LockOSThread()
	fmt.Println("go serves")
	C.program_serve()
}
