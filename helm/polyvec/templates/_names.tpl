{{- define "polyvec.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 47 | trimSuffix "-" }}
{{- end }}

{{/* KubeRay allows a RayService 47 characters: it appends to the name, and so do we. */}}
{{- define "polyvec.fullname" -}}
{{- $name := include "polyvec.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 47 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 47 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "polyvec.serviceName" -}}
{{ include "polyvec.fullname" . }}-serve-svc
{{- end }}

{{- define "polyvec.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "polyvec.fullname" .) "default") }}
{{- end }}

{{- define "polyvec.claimName" -}}
{{ .Values.modelCache.claim.existingClaim | default (.Values.modelCache.claim.create | ternary (printf "%s-models" (include "polyvec.fullname" .)) "") }}
{{- end }}

{{- define "polyvec.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (printf "%s-%s" .Chart.AppVersion $image.build) }}
{{- end -}}
{{- end }}

{{- define "polyvec.selector" -}}
app.kubernetes.io/name: {{ include "polyvec.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of every object but the pods of the cluster: these change with a release, and the pods may not. */}}
{{- define "polyvec.labels" -}}
{{ include "polyvec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
