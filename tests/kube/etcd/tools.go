//go:build tools

// Names the command whose source go.mod pins; never built itself.
package tools

import _ "go.etcd.io/etcd/server/v3"
