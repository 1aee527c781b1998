{{- define "simulator.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "simulator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "simulator.labels" -}}
{{ include "simulator.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
sluice.dev/purpose: demo-and-tests-only
{{- end -}}

{{/* One Deployment with its Service. Takes a dict: root, name, component, command, port, path (of the readiness probe). */}}
{{- define "simulator.server" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "simulator.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  # Its state is in memory: a second replica would be another world.
  replicas: 1
  strategy: {type: Recreate}
  selector:
    matchLabels:
      {{- include "simulator.selectorLabels" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  template:
    metadata:
      labels:
        {{- include "simulator.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: {{ .component }}
        image: {{ include "simulator.image" .root | quote }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        command: {{ toJson .command }}
        env:
        # moto's and boto3's own calls carry these; nobody checks them.
        - {name: AWS_ACCESS_KEY_ID, value: simulator}
        - {name: AWS_SECRET_ACCESS_KEY, value: simulator}
        - {name: AWS_DEFAULT_REGION, value: us-east-1}
        - {name: AWS_EC2_METADATA_DISABLED, value: "true"}
        # A Service's name is no bucket: objects are asked for by path.
        - {name: S3_IGNORE_SUBDOMAIN_BUCKETNAME, value: "true"}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        ports:
        - {name: http, containerPort: {{ .port }}}
        readinessProbe:
          httpGet: {path: {{ .path }}, port: http}
          periodSeconds: 2
          timeoutSeconds: 2
        resources:
          {{- toYaml .root.Values.resources | nindent 10 }}
        volumeMounts:
        - {name: tmp, mountPath: /tmp}
      volumes:
      - name: tmp
        emptyDir: {sizeLimit: 64Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "simulator.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  selector:
    {{- include "simulator.selectorLabels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  ports:
  - {name: http, port: {{ .port }}, targetPort: http}
{{- end -}}
