//go:build tools

// Names the command whose source go.mod pins; never built itself.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
