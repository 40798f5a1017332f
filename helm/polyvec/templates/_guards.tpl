{{/*
Combinations that each value's schema allows and no cluster can run. All that are wrong are said at
once; tests/helm/test_guards.py has a case for each.
*/}}
{{- define "polyvec.guards" -}}
{{- $wrong := list -}}
{{- range list "names" "models" "groups" "doors" "quotas" "ledger" "upgrade" "cache" "network" "metrics" -}}
{{- range include (printf "polyvec.guards.%s" .) $ | splitList "\n" -}}
{{- with trim . }}{{ $wrong = append $wrong . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $wrong -}}
{{- printf "\n%s" (join "\n" $wrong) | fail -}}
{{- end -}}
{{- end }}

{{- define "polyvec.guards.names" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "polyvec.fullname" .)) }}
fullnameOverride: {{ include "polyvec.fullname" . | quote }} cannot be the name of a RayService, which begins with a letter
{{- end }}
{{- if and (eq .Values.image.tag "latest") (not .Values.image.digest) }}
image.tag: latest is another image tomorrow; name a version or a digest
{{- end }}
{{- end }}

{{- define "polyvec.guards.models" -}}
{{- $values := .Values }}
{{- $ids := list }}
{{- range $key, $model := include "polyvec.models" . | fromYaml }}
{{- if dig "enabled" true $model }}
{{- $config := $model.config | default dict }}
{{- $id := $config.id | default $key }}
{{- if has $id $ids }}
models.{{ $key }}.config.id: another model is called {{ $id }}
{{- end }}
{{- $ids = append $ids $id }}
{{- $gpus := dig "gpus_per_replica" 0 $config }}
{{- if and (gt (float64 $gpus) 0.0) (eq $values.image.build "cpu") }}
models.{{ $key }}.config.gpus_per_replica: the image is built for CPUs; image.build gpu is for GPUs
{{- end }}
{{- if and (eq (dig "engine" "auto" $config) "vllm") (eq (float64 $gpus) 0.0) (eq $values.image.build "gpu") }}
models.{{ $key }}.config.gpus_per_replica: vllm of a GPU image needs a GPU, and none is asked for
{{- end }}
{{- if and (gt (float64 $gpus) 1.0) (ne (float64 $gpus) (floor $gpus)) }}
models.{{ $key }}.config.gpus_per_replica: Ray gives a part of one GPU, or whole ones
{{- end }}
{{- if or (dig "resources" "limits" "nvidia.com/gpu" "" $model) (dig "resources" "requests" "nvidia.com/gpu" "" $model) }}
models.{{ $key }}.resources: nvidia.com/gpu follows from gpus_per_replica and replicasPerPod; leave it out
{{- end }}
{{- if and (ne (dig "placement" "shared" $config) "shared") (not (and (hasKey $model "minPods") (hasKey $model "maxPods"))) }}
models.{{ $key }}: with placement per_task each task has its replicas; say minPods and maxPods for all of them
{{- end }}
{{- end }}
{{- end }}
{{- if not $ids }}
models: none is enabled
{{- end }}
{{- end }}

{{- define "polyvec.guards.surge" -}}
{{- if ne (int .most) (int .max) }} and {{ sub .most .max }} more while a redeploy replaces them; with replicas.max_surge_percent 0 there are none{{ end -}}
{{- end }}

{{- define "polyvec.guards.groups" -}}
{{- $values := .Values }}
{{- range include "polyvec.groups" . | fromYamlArray }}
{{- if gt (int .replicas.min) (int .replicas.max) }}
{{ .name }}: replicas.min is above replicas.max
{{- else if gt (int .minPods) (int .maxPods) }}
{{ .name }}: minPods is above maxPods
{{- end }}
{{- if and .shared .maxPods (lt (mul .maxPods .perPod) (int64 .replicas.most)) }}
{{ .name }}: {{ .maxPods }} pods of {{ .perPod }} have no place for {{ .replicas.max }} replicas{{ include "polyvec.guards.surge" .replicas }}
{{- end }}
{{- if and (not $values.ray.autoscaler.enabled) (ne (int .minPods) (int .maxPods)) }}
{{ .name }}: with ray.autoscaler.enabled false nothing adds pods, so minPods must be maxPods
{{- end }}
{{- end }}
{{- if and (not .Values.preprocessor.enabled) (eq (dig "preprocessor" "text" "gateway" .Values.config) "deployment") }}
preprocessor.enabled: config.preprocessor.text deployment needs its pods
{{- end }}
{{- end }}

{{- define "polyvec.guards.doors" -}}
{{- $values := .Values }}
{{- if not .Values.tenants.existingSecret }}
tenants.existingSecret: the Service is open to whoever reaches it, so it needs tenants; polyvec keys new makes the file
{{- end }}
{{- range $name := list "ingress" "httpRoute" "grpcRoute" }}
{{- $door := get $values $name }}
{{- if $door.enabled }}
{{- if eq $values.ray.upgrade.type "NewClusterWithIncrementalUpgrade" }}
{{ $name }}.enabled: with incremental upgrades KubeRay makes the Gateway and its route, and there is no lasting Service
{{- end }}
{{- if and (eq $name "ingress") (not $door.hosts) }}
ingress.hosts: name at least one
{{- end }}
{{- if and (ne $name "ingress") (not $door.parentRefs) }}
{{ $name }}.parentRefs: name at least one gateway
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.grpcRoute.enabled (not .Values.serve.grpc.enabled) }}
grpcRoute.enabled: serve.grpc.enabled is false
{{- end }}
{{- if and .Values.serve.grpc.enabled (eq .Values.ray.upgrade.type "NewClusterWithIncrementalUpgrade") }}
serve.grpc.enabled: an incremental upgrade routes HTTP alone
{{- end }}
{{- $longest := dig "limits" "request_timeout_s" 60 .Values.config }}
{{- if ge (float64 $longest) (float64 .Values.serve.maxRequestSeconds) }}
serve.maxRequestSeconds: must be above config.limits.request_timeout_s, which is {{ $longest }}
{{- end }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add 40 .Values.serve.maxRequestSeconds | int) }}
terminationGracePeriodSeconds: must be 40 above serve.maxRequestSeconds, or requests are cut off
{{- end }}
{{- end }}

{{- define "polyvec.guards.quotas" -}}
{{- $store := .Values.quotas.store }}
{{- $gateways := dig "gateway" "replicas" "max" 1 .Values.config }}
{{- if .Values.quotas.existingSecret }}
{{- if $store }}
quotas.store: the Secret {{ .Values.quotas.existingSecret }} has the URL already; say one of them
{{- end }}
{{- else if and (hasPrefix "memory:" $store) (gt (int $gateways) 1) }}
quotas.store: memory:// counts in each gateway alone, and there may be {{ $gateways }}; use cluster:// or redis://
{{- end }}
{{- if regexMatch "://[^/]*:[^/]*@" $store }}
quotas.store: a password belongs in a Secret; see quotas.existingSecret
{{- end }}
{{- if and .Values.gcs.redisAddress (contains (printf "//%s/" .Values.gcs.redisAddress) (printf "%s/" $store)) }}
gcs.redisAddress: the store of quotas may forget and evict, and the cluster's state may not: use two servers
{{- end }}
{{- if and .Values.gcs.existingSecret (not .Values.gcs.redisAddress) }}
gcs.redisAddress: there is a password, and no address
{{- end }}
{{- end }}

{{- define "polyvec.guards.ledger" -}}
{{- $ledger := .Values.ledger }}
{{- $gateways := dig "gateway" "replicas" "max" 1 .Values.config }}
{{- if and $ledger.url $ledger.existingSecret }}
ledger.url: the Secret {{ $ledger.existingSecret }} has the URL already; say one of them
{{- end }}
{{- if and (regexMatch "^(sqlite|jsonl):" $ledger.url) (gt (int $gateways) 1) (not $ledger.existingClaim) }}
ledger.url: each of {{ $gateways }} gateways would have a file of its own; use postgresql://, or ledger.existingClaim
{{- end }}
{{- if regexMatch "://[^/]*:[^/]*@" $ledger.url }}
ledger.url: a password belongs in a Secret; see ledger.existingSecret
{{- end }}
{{- if and (hasKey .Values.config "ledger") (not (include "polyvec.hasLedger" .)) }}
config.ledger: there is no ledger; see ledger.url
{{- end }}
{{- end }}

{{- define "polyvec.guards.upgrade" -}}
{{- $upgrade := .Values.ray.upgrade }}
{{- if eq $upgrade.type "NewClusterWithIncrementalUpgrade" }}
{{- if not .Values.ray.autoscaler.enabled }}
ray.upgrade.type: an incremental upgrade needs ray.autoscaler.enabled
{{- end }}
{{- if not $upgrade.gatewayClassName }}
ray.upgrade.gatewayClassName: an incremental upgrade needs one
{{- end }}
{{- if gt (int $upgrade.stepSizePercent) (int $upgrade.maxSurgePercent) }}
ray.upgrade.stepSizePercent: is above maxSurgePercent
{{- end }}
{{- end }}
{{- end }}

{{- define "polyvec.guards.cache" -}}
{{- $cache := .Values.modelCache }}
{{- if and (eq $cache.type "claim") (not (include "polyvec.claimName" .)) }}
modelCache.claim: say existingClaim, or create
{{- end }}
{{- if and $cache.claim.create $cache.claim.existingClaim }}
modelCache.claim: existingClaim and create are two claims; say one of them
{{- end }}
{{- if and (include "polyvec.claimName" .) (not (has $cache.type (list "claim" "hub"))) }}
modelCache.claim: type {{ $cache.type }} mounts no claim; type claim or hub does
{{- end }}
{{- if eq $cache.type "image" }}
{{- if not $cache.image.reference }}
modelCache.image.reference: name the artefact
{{- end }}
{{- if semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version }}
modelCache.type: a Kubernetes before 1.33 drops image volumes without a word, and this is {{ .Capabilities.KubeVersion.Version }}
{{- end }}
{{- end }}
{{- end }}

{{- define "polyvec.guards.network" -}}
{{- with .Values.networkPolicy }}
{{- if .enabled }}
{{- if and $.Values.ray.autoscaler.enabled (not .apiServerCIDRs) }}
networkPolicy.apiServerCIDRs: without the API server the autoscaler stands still
{{- end }}
{{- $away := list $.Values.gcs.redisAddress $.Values.quotas.existingSecret $.Values.ledger.existingSecret | join "" }}
{{- $remote := or $away (regexMatch "^(redis|valkey)" $.Values.quotas.store) (regexMatch "^postgres" $.Values.ledger.url) }}
{{- if and $remote (not .extraEgress) }}
networkPolicy.extraEgress: Redis and PostgreSQL are to be reached, and no rule lets them
{{- end }}
{{- if and (eq $.Values.modelCache.type "hub") (not .internet) }}
networkPolicy.internet: modelCache.type hub fetches from there
{{- end }}
{{- if and (or $.Values.ingress.enabled $.Values.httpRoute.enabled $.Values.grpcRoute.enabled) (not .ingressFrom) }}
networkPolicy.ingressFrom: there is a route from outside, and nobody may come in by it
{{- end }}
{{- if and $.Values.metrics.podMonitor.enabled (not .monitoringFrom) }}
networkPolicy.monitoringFrom: metrics.podMonitor.enabled, and nobody may read them
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "polyvec.guards.metrics" -}}
{{- if and .Values.metrics.prometheusRule.enabled (not (.Files.Get "files/rules.yml")) }}
metrics.prometheusRule.enabled: this chart was packaged without files/rules.yml; make chart copies it
{{- end }}
{{- if and .Values.metrics.dashboards.enabled (not (.Files.Get "files/dashboard.json")) }}
metrics.dashboards.enabled: this chart was packaged without files/dashboard.json; make chart copies it
{{- end }}
{{- end }}
