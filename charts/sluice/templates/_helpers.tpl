{{/* Names and labels that every template uses. */}}

{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "sluice.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sluice.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped names carry the namespace: two releases of one name must not share a ClusterRole. */}}
{{- define "sluice.clusterName" -}}
{{- if eq .Release.Namespace (include "sluice.fullname" .) -}}
{{- include "sluice.fullname" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "sluice.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sluice.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "sluice.routerImage" -}}
{{- $image := .Values.router.image -}}
{{- $name := $image.repository -}}
{{- with $image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The one ClusterRole that the operator may hand on: what a router's agent does in its own namespace. */}}
{{- define "sluice.routerRole" -}}
{{- printf "%s-router" (include "sluice.clusterName" .) -}}
{{- end -}}

{{/* What the operator does in every namespace that it watches; a ClusterRole or one Role per namespace. */}}
{{- define "sluice.watchedRules" -}}
- apiGroups: [sluice.dev]
  resources: [models, endpointconfigs, endpoints]
  verbs: [get, list, watch]
- apiGroups: [sluice.dev]
  resources: [models/status, endpointconfigs/status, endpoints/status]
  verbs: [update]
# The finalizer and the annotation that pins the place; the operator never writes a spec.
- apiGroups: [sluice.dev]
  resources: [endpoints]
  verbs: [patch]
# Deployed revisions. RBAC knows no labels: the operator itself touches only those it labelled.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.clusterBackend.enabled }}
# Backend Cluster. The routes of the routers are the operator's alone, their reports the routers' alone.
- apiGroups: [sluice.dev]
  resources: [endpointroutes]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [sluice.dev]
  resources: [routerreports]
  verbs: [list, watch]
# Fleets: a Deployment is made, scaled and deleted. Its pods' template cannot be written by this role.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, delete]
# What a fleet's first pod ran. RBAC knows no labels: the operator itself touches only those it labelled.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, create, delete]
# What pods say in their status; no logs, no shells. A router that does not follow is evicted.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# The router of a namespace is one Deployment with one ServiceAccount, whose rights are those of one ClusterRole.
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [sluice-router]
  verbs: [update]
- apiGroups: [""]
  resources: [services]
  resourceNames: [sluice-router]
  verbs: [update]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  resourceNames: [sluice-router]
  verbs: [update]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  resourceNames: [sluice-router]
  verbs: [update]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [create]
- apiGroups: [""]
  resources: [serviceaccounts]
  resourceNames: [sluice-router]
  verbs: [get, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [create]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  resourceNames: [sluice-router]
  verbs: [get, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [{{ include "sluice.routerRole" . }}]
  verbs: [bind]
{{- end }}
{{- end -}}
