{{/*
What several templates share. A "role" is the dict {root: $, name: "agent"|"controller", values: .Values.<name>}.
*/}}

{{/* Selectors of workloads can never be changed: nothing of the values stands in them. */}}
{{- define "egw.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "egw.labels" -}}
app.kubernetes.io/name: {{ .root.Values.global.name | quote }}
{{ include "egw.selector" . }}
{{- end }}

{{/* metadata of an object of a role: {role, name, namespaced} */}}
{{- define "egw.metadata" -}}
{{- $root := .role.root -}}
name: {{ .name }}
{{- if .namespaced }}
namespace: {{ $root.Release.Namespace }}
{{- end }}
labels:
  {{- include "egw.labels" .role | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
  {{- with $root.Values.global.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) ($root.Values.global.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a role listens. Without an address of its own, "::", which is both families, on a cluster that has IPv6: pods' first
addresses, which the kubelet asks, may be of it. */}}
{{- define "egw.bindAddress" -}}
{{- $feature := .root.Values.feature -}}
{{- $six := or (eq (toString $feature.tunnelUnderlay) "ipv6") (eq (toString $feature.enableIPv6) "true") -}}
{{- .values.bindAddress | default (ternary "::" "0.0.0.0" $six) -}}
{{- end }}

{{- define "egw.image" -}}
{{- $image := .values.image -}}
{{- with .root.Values.global.imageRegistryOverride | default $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}
{{- else }}:{{ .root.Values.global.imageTagOverride | default $image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The three timeouts as egw takes them: directly below feature. */}}
{{- define "egw.timeouts" -}}
{{- $feature := .Values.feature -}}
{{- $nested := $feature.gatewayFailover | default dict -}}
{{- $all := dict "tunnelMonitorPeriod" 5 "tunnelUpdatePeriod" 5 "eipEvictionTimeout" 15 -}}
{{- range $key := keys $all | sortAlpha -}}
{{- $flat := get $feature $key -}}
{{- $inner := get $nested $key -}}
{{- if and (hasKey $feature $key) (hasKey $nested $key) (ne (float64 $flat) (float64 $inner)) -}}
{{- fail (printf "feature.%s is %v and feature.gatewayFailover.%s is %v; they mean the same, give one of them" $key $flat $key $inner) -}}
{{- end -}}
{{- if hasKey $feature $key }}{{ $_ := set $all $key $flat }}{{ else if hasKey $nested $key }}{{ $_ := set $all $key $inner }}{{ end -}}
{{- end -}}
{{- $monitor := get $all "tunnelMonitorPeriod" -}}
{{- $update := get $all "tunnelUpdatePeriod" -}}
{{- $timeout := get $all "eipEvictionTimeout" -}}
{{- if le (float64 $timeout) (addf $monitor $update) -}}
{{- fail (printf "feature.eipEvictionTimeout is %v s; expected more than tunnelMonitorPeriod (%v s) and tunnelUpdatePeriod (%v s) together" $timeout $monitor $update) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* The datapath: plugins.datapath.name or, in the older chart's words, feature.datapathMode. */}}
{{- define "egw.datapath" -}}
{{- $name := .Values.plugins.datapath.name -}}
{{- $mode := .Values.feature.datapathMode -}}
{{- if and $name $mode (ne $name $mode) -}}
{{- fail (printf "feature.datapathMode is %q and plugins.datapath.name is %q; they mean the same, give one of them" $mode $name) -}}
{{- end -}}
{{- $name | default $mode | default "netlink" -}}
{{- end }}

{{/* "on" when the controllers answer for admission. */}}
{{- define "egw.webhook" -}}
{{- if and .Values.webhook.enabled (eq .Values.plugins.stateStore.name "kube") }}on{{ end -}}
{{- end }}

{{- define "egw.webhookName" -}}
{{ .Values.controller.name }}-webhook
{{- end }}

{{/* The Secret with its certificate. Each method has one of its own: neither the type of a Secret nor whose it is can
change, so that an upgrade to another method would fail on one that is there. */}}
{{- define "egw.webhookSecret" -}}
{{- $method := .Values.controller.tls.method -}}
{{- $name := include "egw.webhookName" . -}}
{{- .Values.controller.tls.secretName | default (ternary $name (printf "%s-%s" $name $method) (eq $method "auto")) -}}
{{- end }}

{{/* The state store as chosen, and the webhook that belongs to it. */}}
{{- define "egw.stateStore" -}}
{{- $store := deepCopy .Values.plugins.stateStore -}}
{{- $given := $store.config | default dict -}}
{{- if and (eq $store.name "kube") (hasKey $given "webhook") -}}
{{- fail "plugins.stateStore.config.webhook is set by the chart: use webhook.enabled, controller.webhookPort and controller.tls" -}}
{{- end -}}
{{- if eq (include "egw.webhook" .) "on" -}}
{{- if not (has (dig "namespace" "" $given) (list "" .Release.Namespace)) -}}
{{- fail (printf "plugins.stateStore.config.namespace is %s, but the webhook's Service stands in %s, the release's namespace: leave it out, or set webhook.enabled to false" $given.namespace .Release.Namespace) -}}
{{- end -}}
{{- $name := include "egw.webhookName" . -}}
{{- $tls := .Values.controller.tls -}}
{{- $address := ternary "::" "0.0.0.0" (contains ":" (include "egw.bindAddress" (dict "root" $ "values" .Values.controller))) -}}
{{- $webhook := dict "enabled" true "address" $address "port" .Values.controller.webhookPort "service" $name "configuration" $name -}}
{{- if eq $tls.method "auto" -}}
{{- $domain := .Values.global.clusterDnsDomain -}}
{{- $names := concat ($tls.auto.extraDnsNames | default list) ($tls.auto.extraIpAddresses | default list) -}}
{{- if ne $domain "cluster.local" }}{{ $names = append $names (printf "%s.%s.svc.%s" $name .Release.Namespace $domain) }}{{ end -}}
{{- $_ := merge $webhook (dict "certificate" "selfSigned" "secret" (include "egw.webhookSecret" .)) -}}
{{- with $names }}{{ $_ := set $webhook "names" . }}{{ end -}}
{{- else -}}
{{- $_ := merge $webhook (dict "certificate" "provided" "folder" "/etc/egw-webhook") -}}
{{- end -}}
{{- $_ := set $store "config" (merge (dict "webhook" $webhook) $given) -}}
{{- end -}}
{{- toYaml $store -}}
{{- end }}

{{/* The election as chosen; of the plugin kube the relations of the times, with its defaults for what is not given. */}}
{{- define "egw.leaderElection" -}}
{{- $election := .Values.plugins.leaderElection -}}
{{- if eq $election.name "kube" -}}
{{- $times := merge (dict) ($election.config | default dict) (dict "leaseDuration" 15 "renewDeadline" 10 "retryPeriod" 2) -}}
{{- if le (float64 $times.leaseDuration) (float64 $times.renewDeadline) -}}
{{- fail (printf "plugins.leaderElection.config.leaseDuration is %v s; expected more than renewDeadline (%v s)" $times.leaseDuration $times.renewDeadline) -}}
{{- end -}}
{{- if le (float64 $times.renewDeadline) (mulf 1.2 $times.retryPeriod) -}}
{{- fail (printf "plugins.leaderElection.config.renewDeadline is %v s; expected more than 1.2 times retryPeriod (%v s)" $times.renewDeadline $times.retryPeriod) -}}
{{- end -}}
{{- end -}}
{{- toYaml $election -}}
{{- end }}

{{/* Ends the rendering where values of the roles contradict each other. */}}
{{- define "egw.refuseContradictions" -}}
{{- $controller := .Values.controller -}}
{{- if eq .Values.agent.name $controller.name -}}
{{- fail (printf "agent.name and controller.name are both %s; service accounts and roles have these names, so give different ones" $controller.name) -}}
{{- end -}}
{{- $address := include "egw.bindAddress" (dict "root" $ "values" $controller) -}}
{{- if and (not $controller.hostNetwork) (regexMatch "^(127\\.|::ffff:127\\.|[0:]*:0*1$)" $address) -}}
{{- fail (printf "controller.bindAddress is %s, where no kubelet and no API server reaches a pod with a network of its own: give 0.0.0.0 or ::, or set controller.hostNetwork to true" $address) -}}
{{- end -}}
{{- /* Ports of one network: each role's pod has its own, unless both are the node's. */ -}}
{{- $taken := dict -}}
{{- range $name := list "agent" "controller" -}}
{{- $role := get $.Values $name -}}
{{- $ports := dict "healthServer.port" $role.healthServer.port -}}
{{- if $role.prometheus.enabled }}{{ $_ := set $ports "prometheus.port" $role.prometheus.port }}{{ end -}}
{{- if and (eq $name "controller") (eq (include "egw.webhook" $) "on") }}{{ $_ := set $ports "webhookPort" $role.webhookPort }}{{ end -}}
{{- $network := ternary "node" $name (or (eq $name "agent") $controller.hostNetwork) -}}
{{- range $key := keys $ports | sortAlpha -}}
{{- $port := printf "%s %d" $network (get $ports $key | int) -}}
{{- $mine := printf "%s.%s" $name $key -}}
{{- if hasKey $taken $port -}}
{{- fail (printf "%s and %s are both %d, in one network: give different ports" (get $taken $port) $mine (get $ports $key | int)) -}}
{{- end -}}
{{- $_ := set $taken $port $mine -}}
{{- end -}}
{{- end -}}
{{- $store := $.Values.plugins.stateStore.name -}}
{{- if eq $store "local" -}}
{{- fail "plugins.stateStore.name is local, a file that serves the processes of one machine: pods on different nodes do not share it. Leave it at kube" -}}
{{- end -}}
{{- if and (eq $.Values.plugins.leaderElection.name "local") (gt (int $controller.replicas) 1) -}}
{{- fail (printf "plugins.leaderElection.name is local, which elects among the processes of one machine, but controller.replicas is %d: each pod would lead. Leave it at kube, or set controller.replicas to 1" (int $controller.replicas)) -}}
{{- end -}}
{{- $disruption := $controller.podDisruptionBudget -}}
{{- $least := toString $disruption.minAvailable -}}
{{- /* As the API server counts it: a part is rounded up. */ -}}
{{- $count := ternary (divf (mulf (trimSuffix "%" $least | float64) $controller.replicas) 100 | ceil) (float64 $least) (hasSuffix "%" $least) -}}
{{- if and $disruption.enabled (ge $count (float64 $controller.replicas)) -}}
{{- fail (printf "controller.podDisruptionBudget.minAvailable is %s and controller.replicas %d: no node with a controller could ever be drained" $least (int $controller.replicas)) -}}
{{- end -}}
{{- /* What the chart writes itself. */ -}}
{{- range $path := list "global.commonLabels" "agent.podLabels" "controller.podLabels" -}}
{{- range $key, $_ := get (get $.Values (splitList "." $path | first)) (splitList "." $path | last) | default dict -}}
{{- if has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") -}}
{{- fail (printf "%s has %s, a label that the chart sets itself%s: leave it out" $path $key (ternary " (from global.name)" "" (eq $key "app.kubernetes.io/name"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $path := list "global.commonAnnotations" "agent.podAnnotations" "controller.podAnnotations" -}}
{{- range $key, $_ := get (get $.Values (splitList "." $path | first)) (splitList "." $path | last) | default dict -}}
{{- if or (eq $key "egressgateway.spidernet.io/config") (regexMatch "^helm[.]sh/(hook|resource-policy)" $key) -}}
{{- fail (printf "%s has %s, an annotation that the chart sets itself: leave it out" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* A parent chart's switch and globals arrive here, too; of a release of its own they would mean nothing. */ -}}
{{- if .Chart.IsRoot -}}
{{- range $key, $_ := .Values.global -}}
{{- if not (has $key (list "imageRegistryOverride" "imageTagOverride" "name" "clusterDnsDomain" "commonAnnotations" "commonLabels" "configName")) -}}
{{- fail (printf "global.%s: unknown key; global has imageRegistryOverride, imageTagOverride, name, clusterDnsDomain, commonAnnotations, commonLabels and configName" $key) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values "enabled" -}}
{{- fail "enabled: is for a chart that has this one as a dependency; leave it out" -}}
{{- end -}}
{{- end -}}
{{- /* Lookaheads are egw's alone to judge: helm knows none. */ -}}
{{- range $pattern := $.Values.feature.announcedInterfacesToExclude -}}
{{- if not (or (contains "(?" $pattern) (regexMatch (printf "(%s)|^$" $pattern) "")) -}}
{{- fail (printf "feature.announcedInterfacesToExclude has %q, which is no regular expression; a name that begins with br- is matched by ^br-.*" $pattern) -}}
{{- end -}}
{{- end -}}
{{- /* A folder has one place in a pod, and these are taken. */ -}}
{{- range $place := list "/etc" "/etc/egw" "/etc/egw-webhook" "/host/proc/sys/net" "/proc" "/sys" "/dev" "/run/xtables.lock" "/usr" "/usr/local" "/usr/bin" "/usr/lib" "/bin" "/lib" "/var" "/run" "/tmp" -}}
{{- if eq (trimSuffix "/" $.Values.stateDir) $place -}}
{{- fail (printf "stateDir is %s, which is something else in egw's pods: give a folder of its own, e.g. /var/lib/egw" $.Values.stateDir) -}}
{{- end -}}
{{- end -}}
{{- if not (or (dig "enableIPv4" true $.Values.feature) $.Values.feature.enableIPv6) -}}
{{- fail "feature.enableIPv4 and feature.enableIPv6 are both false: nothing would be left to do" -}}
{{- end -}}
{{- /* What the chart writes itself into a pod. */ -}}
{{- range $role := list "agent" "controller" -}}
{{- $values := get $.Values $role -}}
{{- range $variable := $values.extraEnv -}}
{{- if and (eq $role "agent") (eq (toString (dig "name" "" $variable)) "NODE_NAME") -}}
{{- fail "agent.extraEnv has NODE_NAME, a variable that the chart sets itself: each agent would take that node. Leave it out" -}}
{{- end -}}
{{- end -}}
{{- range $volume := $values.extraVolumes -}}
{{- if has (toString (dig "name" "" $volume)) (list "config" "state" "sysctl" "certificate") -}}
{{- fail (printf "%s.extraVolumes has %s, a volume that the chart makes itself: give it another name" $role $volume.name) -}}
{{- end -}}
{{- end -}}
{{- range $mount := $values.extraVolumeMounts -}}
{{- if has (trimSuffix "/" (toString (dig "mountPath" "" $mount))) (list "/etc/egw" "/etc/egw-webhook" "/host/proc/sys/net" (trimSuffix "/" $.Values.stateDir)) -}}
{{- fail (printf "%s.extraVolumeMounts has %s, where the chart mounts something itself: choose another place" $role $mount.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* Two releases' agents would share ports, state folder and kernel of each node, and the uninstall of one would purge both. */ -}}
{{- range $set := (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- $labels := dig "metadata" "labels" (dict) $set -}}
{{- $notes := dig "metadata" "annotations" (dict) $set -}}
{{- $of := printf "%s/%s" (get $notes "meta.helm.sh/release-namespace") (get $notes "meta.helm.sh/release-name") -}}
{{- if and (hasPrefix "egressgateway-" (toString (get $labels "helm.sh/chart"))) (ne $of (printf "%s/%s" $.Release.Namespace $.Release.Name)) -}}
{{- fail (printf "DaemonSet %s/%s is of another release of this chart (%s), and there can be one in a cluster: upgrade that one, or uninstall it first" $set.metadata.namespace $set.metadata.name $of) -}}
{{- end -}}
{{- end -}}
{{- $given := list -}}
{{- $missing := list -}}
{{- range $key := list "tlsCert" "tlsKey" "tlsCa" -}}
{{- if get $controller.tls.provided $key }}{{ $given = append $given $key }}{{ else }}{{ $missing = append $missing $key }}{{ end -}}
{{- end -}}
{{- if and $given (ne $controller.tls.method "provided") -}}
{{- fail (printf "controller.tls.provided has %s, but controller.tls.method is %s: set the method to provided, or leave them out" (join ", " $given) $controller.tls.method) -}}
{{- end -}}
{{- if and $given $missing -}}
{{- fail (printf "controller.tls.provided has %s without %s; certificate, key and the authority that signed it belong together" (join ", " $given) (join ", " $missing)) -}}
{{- end -}}
{{- end }}

{{/* Of a role: what egw's configuration says of it. */}}
{{- define "egw.roleConfig" -}}
bindAddress: {{ include "egw.bindAddress" . | quote }}
healthPort: {{ .values.healthServer.port }}
metricsPort: {{ ternary .values.prometheus.port 0 .values.prometheus.enabled }}
debug:
  logLevel: {{ .values.debug.logLevel }}
{{- if .values.bootDrop }}
bootDrop: true
{{- end }}
{{- end }}

{{- define "egw.config" -}}
{{- include "egw.refuseContradictions" . -}}
feature:
  {{- $taken := list "datapathMode" "gatewayFailover" "tunnelMonitorPeriod" "tunnelUpdatePeriod" "eipEvictionTimeout" }}
  {{- range $key, $value := .Values.feature }}
  {{- if not (has $key $taken) }}
  {{- toYaml (dict $key $value) | nindent 2 }}
  {{- end }}
  {{- end }}
  gatewayFailover:
    enable: {{ dig "gatewayFailover" "enable" true .Values.feature }}
  {{- include "egw.timeouts" . | nindent 2 }}
plugins:
  {{- with .Values.plugins.dir }}
  dir: {{ . | quote }}
  {{- end }}
  stateStore:
    {{- include "egw.stateStore" . | nindent 4 }}
  leaderElection:
    {{- include "egw.leaderElection" . | nindent 4 }}
  datapath:
    name: {{ include "egw.datapath" . }}
    config:
      {{- toYaml (.Values.plugins.datapath.config | default dict) | nindent 6 }}
{{- with .Values.marks }}
marks:
  {{- toYaml . | nindent 2 }}
{{- end }}
agent:
  {{- include "egw.roleConfig" (dict "root" $ "values" .Values.agent) | nindent 2 }}
controller:
  {{- include "egw.roleConfig" (dict "root" $ "values" .Values.controller) | nindent 2 }}
stateDir: {{ .Values.stateDir | quote }}
{{- with .Values.log }}
log:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A role's pod template up to its containers. */}}
{{- define "egw.podMetadata" -}}
labels:
  {{- include "egw.labels" . | nindent 2 }}
  {{- with merge (dict) (.values.podLabels | default dict) (.root.Values.global.commonLabels | default dict) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A changed configuration starts the pods anew.
  egressgateway.spidernet.io/config: {{ include "egw.config" .root | sha256sum }}
  {{- with merge (dict) (.values.podAnnotations | default dict) (.root.Values.global.commonAnnotations | default dict) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "egw.podSpec" -}}
serviceAccountName: {{ .values.name }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if .values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" }}
{{- with get $.values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .values.image.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A container's securityContext: {security, given}. The API server refuses what forbids and allows the same. */}}
{{- define "egw.security" -}}
{{- $given := .given | default dict -}}
{{- $added := dig "capabilities" "add" list $given | default list -}}
{{- $security := .security -}}
{{- if $given.privileged -}}
{{- $security = omit $security "allowPrivilegeEscalation" "capabilities" "seccompProfile" -}}
{{- else if or (has "CAP_SYS_ADMIN" $added) (has "SYS_ADMIN" $added) -}}
{{- $security = omit $security "allowPrivilegeEscalation" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $security $given) -}}
{{- end }}

{{/* That of a controller, and of what runs as one. */}}
{{- define "egw.controllerSecurity" -}}
{{- $security := dict
  "runAsNonRoot" true
  "runAsUser" 65532
  "allowPrivilegeEscalation" false
  "readOnlyRootFilesystem" true
  "capabilities" (dict "drop" (list "ALL"))
  "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- include "egw.security" (dict "security" $security "given" .Values.controller.securityContext) -}}
{{- end }}

{{/* A role's container: everything but args, env, securityContext and volumeMounts. */}}
{{- define "egw.container" -}}
name: {{ .name }}
image: {{ include "egw.image" . | quote }}
imagePullPolicy: {{ .values.image.pullPolicy }}
ports:
  - name: health
    containerPort: {{ .values.healthServer.port }}
  {{- if .values.prometheus.enabled }}
  - name: metrics
    containerPort: {{ .values.prometheus.port }}
  {{- end }}
  {{- if and (eq .name "controller") (eq (include "egw.webhook" .root) "on") }}
  - name: webhook
    containerPort: {{ .values.webhookPort }}
  {{- end }}
{{- /* A process that waits for the store is not helped by a restart: only readiness asks for more. */}}
startupProbe:
  {{- include "egw.probe" (dict "role" . "path" "/healthz" "probe" .values.healthServer.startupProbe) | nindent 2 }}
livenessProbe:
  {{- include "egw.probe" (dict "role" . "path" "/healthz" "probe" .values.healthServer.livenessProbe) | nindent 2 }}
readinessProbe:
  {{- include "egw.probe" (dict "role" . "path" "/readyz" "probe" .values.healthServer.readinessProbe) | nindent 2 }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "egw.probe" -}}
httpGet:
  path: {{ .path }}
  port: health
  {{- $address := include "egw.bindAddress" .role }}
  {{- if not (has $address (list "0.0.0.0" "::")) }}
  host: {{ $address | quote }}
  {{- end }}
timeoutSeconds: 5
{{ toYaml .probe }}
{{- end }}

{{/* Arguments after the role's own. */}}
{{- define "egw.moreArgs" -}}
{{- with .values.debug.logEncoder }}
- --set
- log.format={{ ternary "json" "text" (eq . "json") }}
{{- end }}
{{- with .values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
