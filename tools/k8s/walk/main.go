// Command k8swalk is what scripts/k8s-test.sh drives a Kubernetes apiserver with, and judges its storage by.
//
//	k8swalk ports N                          N free ports
//	k8swalk prepare DIR PORT                 keys, a token and a kubeconfig for an apiserver on PORT
//	k8swalk leader URL,URL,..                the number (from 1) of the member that leads
//	k8swalk walk  -kubeconfig F -members U   bulk writes, lists, races, expiry; every watch event counted
//	k8swalk storm -kubeconfig F -members U   writers that go on while members are killed; what was acknowledged must be there
//	k8swalk judge -apiserver-metrics ...     did the apiserver take the paths we want it to take?
//
// Each judgement is one line, "  ok   ..." or "  FAIL ...", which the script counts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// judge counts what was found.
type judge struct {
	mu     sync.Mutex
	failed int
}

// check prints one judgement.
func (j *judge) check(ok bool, format string, arguments ...any) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	word := "ok  "
	if !ok {
		word = "FAIL"
		j.failed++
	}
	fmt.Printf("  %s %s\n", word, fmt.Sprintf(format, arguments...))
	return ok
}

// note prints a figure that nothing is judged by.
func note(format string, arguments ...any) {
	fmt.Printf("       %s\n", fmt.Sprintf(format, arguments...))
}

// session is what all walks share.
type session struct {
	*judge
	ctx     context.Context
	rest    *rest.Config
	client  dynamic.Interface
	members []string
	// Life of an event object, as the apiserver was told.
	eventTTL time.Duration
	// How often the apiserver compacts.
	compaction time.Duration
	// The storm ends when this file exists.
	stop string
	// Lines "SECONDS.NANOS what" of what was done to the members meanwhile.
	marks string
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: k8swalk ports|prepare|leader|walk|storm|judge ...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "k8swalk: %v\n", err)
		os.Exit(1)
	}
}

func run(command string, arguments []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	switch command {
	case "ports":
		return printPorts(arguments)
	case "prepare":
		return prepare(arguments)
	case "leader":
		return printLeader(ctx, arguments)
	case "walk", "storm", "judge":
	default:
		return fmt.Errorf("no such command: %s", command)
	}
	s, err := open(ctx, command, arguments)
	if err != nil {
		return err
	}
	switch command {
	case "walk":
		err = s.walk()
	case "storm":
		err = s.storm()
	case "judge":
		err = s.judgePaths()
	}
	if err == nil && s.failed > 0 {
		err = fmt.Errorf("%s: %d failed", command, s.failed)
	}
	return err
}

func open(ctx context.Context, command string, arguments []string) (*session, error) {
	s := &session{judge: &judge{}, ctx: ctx}
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the apiserver")
	members := flags.String("members", "", "client URLs of the members, with commas")
	flags.DurationVar(&s.eventTTL, "event-ttl", time.Hour, "the apiserver's --event-ttl")
	flags.DurationVar(&s.compaction, "compaction", 5*time.Minute, "the apiserver's --etcd-compaction-interval")
	flags.StringVar(&s.stop, "stop", "", "file that ends the storm")
	flags.StringVar(&s.marks, "marks", "", "file that tells what was done to the members")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	s.members = strings.Split(*members, ",")
	var err error
	if s.rest, err = clientcmd.BuildConfigFromFlags("", *kubeconfig); err != nil {
		return nil, err
	}
	// Our own pace; and long enough that it is the server that gives up first.
	s.rest.QPS, s.rest.Timeout = -1, 0
	s.client, err = dynamic.NewForConfig(s.rest)
	return s, err
}

// eventually asks until it is so, or the time is over.
func eventually(ctx context.Context, limit time.Duration, so func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return true
}
