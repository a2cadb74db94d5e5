//go:build tools

// Names the command whose source go.mod pins; never built itself.
package tools

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
