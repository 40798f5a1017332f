{{/* Polyvec's config: the `args:` of the application. The one place that knows its keys. */}}
{{- define "polyvec.args" -}}
{{- $args := deepCopy .Values.config -}}
{{- $models := list -}}
{{- range $key, $model := include "polyvec.models" . | fromYaml -}}
{{- if dig "enabled" true $model -}}
{{- $config := dict "id" $key | merge (deepCopy ($model.config | default dict)) -}}
{{- $models = append $models (set $config "resources" (dict (printf "model-%s" $key) 1)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $args "models" $models -}}
{{- $_ := set $args "gateway" (dig "gateway" dict $args | merge (dict "resources" (dict "gateway" 1))) -}}
{{- if .Values.preprocessor.enabled -}}
{{- $_ := set $args "preprocessor" (dig "preprocessor" dict $args | merge (dict "resources" (dict "preprocessor" 1))) -}}
{{- end -}}
{{- $_ := set $args "tenants" (printf "/etc/polyvec/tenants/%s" .Values.tenants.key) -}}
{{- $store := .Values.quotas.existingSecret | empty | ternary .Values.quotas.store "${POLYVEC_QUOTAS_URL}" -}}
{{- if $store -}}
{{- $_ := set $args "quotas" (dig "quotas" dict $args | merge (dict "store" $store)) -}}
{{- end -}}
{{- if include "polyvec.hasLedger" . -}}
{{- $url := .Values.ledger.existingSecret | empty | ternary .Values.ledger.url "${POLYVEC_LEDGER_URL}" -}}
{{- $own := dict "url" $url "spool" "/var/lib/polyvec/spool" -}}
{{- $_ := set $args "ledger" (dig "ledger" dict $args | merge $own) -}}
{{- else -}}
{{- $_ := set $args "ledger" nil -}}
{{- end -}}
{{- toYaml $args -}}
{{- end }}

{{- define "polyvec.hasLedger" -}}
{{- if or .Values.ledger.url .Values.ledger.existingSecret }}true{{ end -}}
{{- end }}

{{/* The whole Serve config, as YAML. A change of it is deployed into the running cluster. */}}
{{- define "polyvec.serveConfig" -}}
{{- $application := dict
  "name" "polyvec" "route_prefix" "/" "import_path" "deployments.app:build"
  "args" (include "polyvec.args" . | fromYaml) -}}
{{- $config := dict
  "proxy_location" "EveryNode"
  "http_options" (dict "host" "0.0.0.0" "port" 8000 "request_timeout_s" .Values.serve.maxRequestSeconds)
  "logging_config" (dict "log_level" "WARNING" "encoding" "JSON" "enable_access_log" false)
  "applications" (list $application) -}}
{{- if .Values.serve.grpc.enabled -}}
{{- /* As deployments/grpc.py has it: no timeout, which would end a long stream. */ -}}
{{- $services := list
  "serving.protos.embeddings_pb2_grpc.add_EmbeddingsServiceServicer_to_server"
  "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server" -}}
{{- $_ := set $config "grpc_options" (dict
  "port" 9000 "grpc_servicer_functions" $services "enable_reflection" true) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}
