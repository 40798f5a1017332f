{{/* The models that there are, as YAML: one that was set to null is none. */}}
{{- define "polyvec.models" -}}
{{- $found := dict -}}
{{- range $key, $model := .Values.models -}}
{{- if not (kindIs "invalid" $model) }}{{ $_ := set $found $key $model }}{{ end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end }}

{{/*
The worker groups, as YAML: a list in the order in which they stand in the cluster. KubeRay keeps a
cluster to which a group was appended, and makes a new one where a group comes before another; so
the order is `order`, then models last, then the name.
  - {name, component, model, order, unit, cpus, gpus, minPods, maxPods, perPod, replicas, shared, spec}
`unit` is the Ray resource that a replica takes one of: it holds each replica to its own pods.
`replicas` has {min, max, most}: `most` while a redeploy replaces them.
*/}}
{{- define "polyvec.groups" -}}
{{- $groups := list -}}
{{- $gateway := dig "gateway" dict .Values.config -}}
{{- $groups = append $groups (include "polyvec.groupOfOne" (dict "name" "gateway" "config" $gateway "spec" .Values.gateway) | fromYaml) -}}
{{- if .Values.preprocessor.enabled -}}
{{- $config := dig "preprocessor" dict .Values.config -}}
{{- $groups = append $groups (include "polyvec.groupOfOne" (dict "name" "preprocessor" "config" $config "spec" .Values.preprocessor) | fromYaml) -}}
{{- end -}}
{{- range $key, $model := include "polyvec.models" . | fromYaml -}}
{{- $groups = append $groups (include "polyvec.groupOfModel" (dict "key" $key "model" $model) | fromYaml) -}}
{{- end -}}
{{- $sorted := dict -}}
{{- range $groups -}}
{{- $_ := set $sorted (printf "%06d %t %s" (int .order) (eq .component "model") .name) . -}}
{{- end -}}
{{- range keys $sorted | sortAlpha -}}
{{- list (get $sorted .) | toYaml }}
{{ end -}}
{{- end }}

{{/* Of a part's config, as YAML: {min, max, most}. The defaults are those of Polyvec's config. */}}
{{- define "polyvec.replicas" -}}
{{- $max := dig "replicas" "max" 1 . | int -}}
{{- $surge := mul (dig "replicas" "max_surge_percent" 25 .) $max | add 99 -}}
{{- dict "min" (dig "replicas" "min" 1 . | int) "max" $max "most" (div $surge 100 | add $max) | toYaml }}
{{- end }}

{{/* Gateways and preprocessors: one replica a pod. */}}
{{- define "polyvec.groupOfOne" -}}
{{- $replicas := include "polyvec.replicas" .config | fromYaml -}}
{{- dict
  "name" .name "component" .name "order" (.spec.order | default 0) "unit" .name
  "cpus" (dig "cpus" 1 .config | ceil | int) "gpus" 0
  "minPods" (hasKey .spec "minPods" | ternary .spec.minPods $replicas.min | int)
  "maxPods" (hasKey .spec "maxPods" | ternary .spec.maxPods $replicas.most | int)
  "perPod" 1 "replicas" $replicas
  "shared" true "spec" .spec | toYaml }}
{{- end }}

{{/* A disabled model keeps its group, empty: to remove it from the list would be a new cluster. */}}
{{- define "polyvec.groupOfModel" -}}
{{- $config := .model.config | default dict -}}
{{- $name := printf "model-%s" .key -}}
{{- $perPod := .model.replicasPerPod | default 1 -}}
{{- $replicas := include "polyvec.replicas" $config | fromYaml -}}
{{- $on := dig "enabled" true .model -}}
{{- dict
  "name" $name "component" "model" "model" .key "order" (.model.order | default 0) "unit" $name
  "cpus" (mulf (dig "cpus_per_replica" 1 $config) $perPod | ceil | int)
  "gpus" (mulf (dig "gpus_per_replica" 0 $config) $perPod | ceil | int)
  "minPods" (ternary (hasKey .model "minPods" | ternary .model.minPods (divf $replicas.min $perPod | ceil)) 0 $on | int)
  "maxPods" (ternary (hasKey .model "maxPods" | ternary .model.maxPods (divf $replicas.most $perPod | ceil)) 0 $on | int)
  "perPod" $perPod "replicas" $replicas
  "shared" (eq (dig "placement" "shared" $config) "shared") "spec" .model | toYaml }}
{{- end }}
