// Only to name a release and its checksum: what is taken of it are files (see monitoring.ts), so nothing here imports it.
module imageproxy.dev/test/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
