{{/*
A pod template: of the head (no `group`) or of a worker group. Nothing that changes from release to
release may stand here, neither the chart's version nor a Secret's checksum: it would be a new cluster.
*/}}
{{- define "polyvec.pod" -}}
{{- $root := .root -}}
{{- $group := .group | default dict -}}
{{- $spec := .spec -}}
{{- $head := empty $group -}}
metadata:
  labels:
    {{- include "polyvec.podLabels" . | nindent 4 }}
  {{- $annotations := $spec.annotations | default dict }}
  {{- if $head }}
  {{- $annotations = merge (dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false") $annotations }}
  {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if not $head }}
  serviceAccountName: {{ include "polyvec.serviceAccountName" $root }}
  automountServiceAccountToken: false
  restartPolicy: Never
  {{- end }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $spec.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $spec.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $spec.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $tolerations := $spec.tolerations | default list }}
  {{- if gt (dig "gpus" 0 $group | int) 0 }}
  {{- $tolerations = prepend $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
  {{- end }}
  {{- with $tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $spec.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $spec.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml $spec.topologySpreadConstraints | nindent 4 }}
  {{- else if and (not $head) $root.Values.topologySpread }}
  topologySpreadConstraints:
    {{- range $root.Values.topologySpread }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "polyvec.podLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ $head | ternary "ray-head" "ray-worker" }}
      image: {{ include "polyvec.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      ports:
        {{- include "polyvec.ports" . | nindent 8 }}
      env:
        {{- include "polyvec.env" . | nindent 8 }}
      resources:
        {{- include "polyvec.resources" . | nindent 8 }}
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      {{- if not $head }}
      {{- with $root.Values.probes.readiness }}
      readinessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.probes.liveness }}
      livenessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      lifecycle:
        preStop:
          exec:
            # The Service forgets the pod while its proxy still answers.
            command: [/bin/sh, -c, "sleep 10; ray stop --grace-period 60"]
      {{- end }}
      volumeMounts:
        {{- include "polyvec.mounts" . | nindent 8 }}
  volumes:
    {{- include "polyvec.volumes" . | nindent 4 }}
{{- end }}

{{- define "polyvec.podLabels" -}}
{{- $group := .group | default (dict "component" "head") -}}
{{ include "polyvec.selector" .root }}
app.kubernetes.io/component: {{ $group.component }}
{{- with $group.model }}
polyvec/model: {{ . }}
{{- end }}
{{- end }}

{{- define "polyvec.ports" -}}
{{- if not .group -}}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: as-metrics, containerPort: 44217}
- {name: dash-metrics, containerPort: 44227}
{{ end -}}
- {name: metrics, containerPort: 8080}
- {name: serve, containerPort: 8000}
{{- if .root.Values.serve.grpc.enabled }}
- {name: serve-grpc, containerPort: 9000}
{{- end }}
{{- end }}

{{/* A GPU's request is its limit; a container without limits is the node's to starve. */}}
{{- define "polyvec.resources" -}}
{{- $resources := deepCopy (.spec.resources | default dict) -}}
{{- $gpus := dig "gpus" 0 (.group | default dict) | int -}}
{{- if $gpus -}}
{{- $_ := set $resources "limits" (dig "limits" dict $resources | merge (dict "nvidia.com/gpu" $gpus)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Ray and Serve read it when they are imported, so every pod has it, as deployments/local.py has. */}}
{{- define "polyvec.env" -}}
{{- $values := .root.Values -}}
- {name: HOME, value: /home/polyvec}
- {name: XDG_CACHE_HOME, value: /cache}
- {name: POLYVEC_CACHE, value: /cache/polyvec}
- {name: VLLM_CACHE_ROOT, value: /cache/vllm}
- {name: TRITON_CACHE_DIR, value: /cache/triton}
- {name: TORCHINDUCTOR_CACHE_DIR, value: /cache/inductor}
- {name: HF_HOME, value: {{ include "polyvec.hubFolder" .root }}}
- {name: HF_HUB_OFFLINE, value: {{ eq $values.modelCache.type "hub" | ternary "0" "1" | quote }}}
{{- with $values.modelCache.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.modelCache.hub.tokenKey }}}}
{{- end }}
{{- if eq $values.ray.authMode "disabled" }}
- {name: RAY_AUTH_MODE, value: disabled}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_worker_niceness, value: "0"}
- {name: MALLOC_ARENA_MAX, value: "2"}
- {name: RAY_metrics_report_interval_ms, value: "2000"}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS, value: "1"}
- {name: RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH, value: "67108864"}
- {name: RAY_SERVE_GRPC_MAX_MESSAGE_SIZE, value: "134217728"}
- {name: RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S, value: {{ $values.serve.maxRequestSeconds | quote }}}
- {name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S, value: {{ add $values.serve.maxRequestSeconds 10 | quote }}}
{{- if eq (dig "component" "" (.group | default dict)) "gateway" }}
- {name: POLYVEC_STATE, value: /var/lib/polyvec}
{{- with $values.quotas.existingSecret }}
- name: POLYVEC_QUOTAS_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.quotas.urlKey }}}}
{{- end }}
{{- with $values.ledger.existingSecret }}
- name: POLYVEC_LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.ledger.urlKey }}}}
{{- end }}
{{- end }}
{{- with concat ($values.ray.env | default list) (.spec.env | default list) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "polyvec.hubFolder" -}}
{{- $onClaim := and (eq .Values.modelCache.type "hub") (include "polyvec.claimName" .) -}}
{{ empty $onClaim | ternary "/cache/huggingface" (printf "%s/huggingface" .Values.modelCache.mountPath) }}
{{- end }}

{{/* The root is read-only: what is written lies on these. Models are read by the head's builder too. */}}
{{- define "polyvec.mounts" -}}
{{- $cache := .root.Values.modelCache -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/polyvec}
- {name: cache, mountPath: /cache}
{{- if include "polyvec.mountsModels" .root }}
- {name: models, mountPath: {{ $cache.mountPath }}, readOnly: {{ ne $cache.type "hub" }}}
{{- end }}
{{- if eq (dig "component" "" (.group | default dict)) "gateway" }}
- {name: tenants, mountPath: /etc/polyvec/tenants, readOnly: true}
- {name: state, mountPath: /var/lib/polyvec}
- {name: spool, mountPath: /var/lib/polyvec/spool}
{{- end }}
{{- end }}

{{- define "polyvec.mountsModels" -}}
{{- if or (eq .Values.modelCache.type "image") (include "polyvec.claimName" .) }}true{{ end -}}
{{- end }}

{{- define "polyvec.volumes" -}}
{{- $values := .root.Values -}}
- {name: tmp, emptyDir: {sizeLimit: {{ $values.scratch.tmpSizeLimit }}}}
- {name: home, emptyDir: {sizeLimit: 1Gi}}
- {name: cache, emptyDir: {sizeLimit: {{ $values.scratch.cacheSizeLimit }}}}
{{- if eq $values.modelCache.type "image" }}
- name: models
  image:
    {{- toYaml $values.modelCache.image | nindent 4 }}
{{- else if include "polyvec.mountsModels" .root }}
- name: models
  persistentVolumeClaim:
    claimName: {{ include "polyvec.claimName" .root }}
    readOnly: {{ ne $values.modelCache.type "hub" }}
{{- end }}
{{- if eq (dig "component" "" (.group | default dict)) "gateway" }}
# A directory, never a subPath: the kubelet changes it when the Secret changes.
- {name: tenants, secret: {secretName: {{ $values.tenants.existingSecret }}}}
{{- with $values.ledger.existingClaim }}
- {name: state, persistentVolumeClaim: {claimName: {{ . }}}}
{{- else }}
- {name: state, emptyDir: {sizeLimit: 1Gi}}
{{- end }}
{{- with $values.ledger.spool.hostPath }}
- {name: spool, hostPath: {path: {{ . }}, type: DirectoryOrCreate}}
{{- else }}
- {name: spool, emptyDir: {sizeLimit: {{ $values.ledger.spool.sizeLimit }}}}
{{- end }}
{{- end }}
{{- end }}
