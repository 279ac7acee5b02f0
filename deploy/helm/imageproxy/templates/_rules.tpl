{{/*
What the controller may do, and no more; a test runs it with these rights under the API server's audit log, and finds none missing and
none idle.
*/}}

{{/* In a namespace in which images are. */}}
{{- define "imageproxy.rules.images" -}}
- apiGroups: [imageproxy.dev]
  resources: [vmimages, imagesubscriptions]
  verbs: [get, list, watch, patch]
{{- /* Subscriptions make them, and take away what is theirs. */}}
- apiGroups: [imageproxy.dev]
  resources: [vmimages]
  verbs: [create, delete]
- apiGroups: [imageproxy.dev]
  resources: [vmimages/status, imagesubscriptions/status]
  verbs: [patch]
{{ include "imageproxy.rules.references" . }}
{{ include "imageproxy.rules.events" . }}
{{- end -}}

{{/* RBAC has no verb for metadata alone: only metadata is watched, and a value is read when it is needed. */}}
{{- define "imageproxy.rules.references" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
{{- end -}}

{{- define "imageproxy.rules.events" -}}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* A Lease of this name. Who creates cannot be asked for a name. */}}
{{- define "imageproxy.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ . }}]
  verbs: [get, update]
{{- end -}}

{{/* What has no namespace. */}}
{{- define "imageproxy.rules.cluster" -}}
- apiGroups: [imageproxy.dev]
  resources: [imagesites]
  verbs: [get, list, watch, patch]
- apiGroups: [imageproxy.dev]
  resources: [imagesites/status]
  verbs: [patch]
{{- with .Values.sites }}
- apiGroups: [imageproxy.dev]
  resources: [imagesites]
  resourceNames:
    {{- range $name, $_ := . }}
    - {{ $name | quote }}
    {{- end }}
  verbs: [create]
{{- end }}
{{- if not .Values.instance }}
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end }}
{{- end -}}

{{/*
A role of these rules and its binding to the controller's ServiceAccount; for the whole cluster where no namespace is named:
(dict "root" $ "name" … "namespace" … "rules" (list …))
*/}}
{{- define "imageproxy.grant" -}}
{{- $scope := ternary "" "Cluster" (hasKey . "namespace") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $scope }}Role
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "imageproxy.labels" .root | nindent 4 }}
rules:
  {{- range .rules }}
  {{- . | nindent 2 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $scope }}RoleBinding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "imageproxy.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $scope }}Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "imageproxy.serviceAccountName" .root }}
    namespace: {{ .root.Release.Namespace }}
{{ end -}}
