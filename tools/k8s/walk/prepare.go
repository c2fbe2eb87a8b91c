package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// printPorts holds all ports until it has as many as wanted, so that they differ.
func printPorts(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("usage: ports N")
	}
	wanted, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	for range wanted {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	}
	return nil
}

const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- name: rusd
  cluster: {server: "https://127.0.0.1:%s", certificate-authority: %s, tls-server-name: kubernetes.default.svc}
users:
- name: admin
  user: {token: %s}
contexts:
- name: rusd
  context: {cluster: rusd, user: admin}
current-context: rusd
`

// prepare writes what an apiserver and its clients need: sa.key, tokens.csv and kubeconfig. The server's own certificate
// (certs/apiserver.crt) the apiserver makes itself.
func prepare(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: prepare DIR PORT")
	}
	dir, port := arguments[0], arguments[1]
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	token := hex.EncodeToString(secret)
	for name, text := range map[string]string{
		"sa.key":     string(keyText),
		"tokens.csv": token + ",admin,admin,\"system:masters\"\n",
		"kubeconfig": fmt.Sprintf(kubeconfigText, port, filepath.Join(dir, "certs", "apiserver.crt"), token),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// dial opens a client of one member only.
func dial(url string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            []string{url},
		DialTimeout:          10 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zap.NewNop(),
	})
}

// leader finds the member that calls itself leader; 0 if there is none.
func leader(ctx context.Context, members []string) int {
	for i, url := range members {
		client, err := dial(url)
		if err != nil {
			continue
		}
		asked, cancel := context.WithTimeout(ctx, 2*time.Second)
		status, err := client.Status(asked, url)
		cancel()
		client.Close()
		if err == nil && status.Leader == status.Header.MemberId {
			return i + 1
		}
	}
	return 0
}

func printLeader(ctx context.Context, arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("usage: leader URL,URL")
	}
	number := 0
	if !eventually(ctx, 30*time.Second, func() bool { number = leader(ctx, strings.Split(arguments[0], ",")); return number > 0 }) {
		return fmt.Errorf("no member leads")
	}
	fmt.Println(number)
	return nil
}
