// main.go - a Go program as it is: lines of JSON in, lines of JSON out.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

type request struct {
	Numbers []int `json:"numbers"`
}
type answer struct {
	Count   int   `json:"count"`
	Squares []int `json:"squares"`
	Slept   bool  `json:"slept"`
}

func square(numbers []int) []int {
	var wait sync.WaitGroup
	results := make(chan int, len(numbers))
	for _, n := range numbers {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			time.Sleep(time.Duration(n) * time.Millisecond)
			results <- n * n
		}(n)
	}
	wait.Wait()
	close(results)
	all := []int{}
	for r := range results {
		all = append(all, r)
	}
	sort.Ints(all)
	return all
}

func main() {
	count := 0
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			fmt.Println("error:", err)
			continue
		}
		count++
		start := time.Now()
		squares := square(r.Numbers)
		garbage := make([][]byte, 0)
		for i := 0; i < 100; i++ {
			garbage = append(garbage[:i%10], make([]byte, 100000))
		}
		runtime.GC()
		out, _ := json.Marshal(answer{count, squares, time.Since(start) >= 5*time.Millisecond && len(garbage) > 0})
		fmt.Println(string(out))
	}
	os.Exit(count)
}
