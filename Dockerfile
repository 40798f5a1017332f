# Polyvec for processors or for GPUs, with torch and vLLM of that build:
#   docker build --build-arg BUILD=cpu -t polyvec:0.1.0-cpu .
#   docker build --build-arg BUILD=gpu -t polyvec:0.1.0-gpu .
# CUDA's libraries come with torch's wheels; the node brings the driver.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG BUILD=cpu
WORKDIR /opt/polyvec
COPY pyproject.toml README.md LICENSE ./
COPY deployments deployments
COPY serving serving
RUN --mount=type=cache,target=/root/.cache \
    case "$BUILD" in \
      cpu) torch=cpu ;; \
      gpu) torch=cuda ;; \
      *) echo "BUILD is '$BUILD'; it may be cpu or gpu" >&2; exit 1 ;; \
    esac \
    && POLYVEC_TORCH=$torch python deployments/install.py demo vllm \
    # The root is read-only where this runs, so nothing could be compiled there.
    && .venv/bin/python -m compileall -q -j 0 .venv/lib serving deployments

FROM python:${PYTHON}
ARG BUILD=cpu
LABEL org.opencontainers.image.title=polyvec \
      org.opencontainers.image.licenses=Apache-2.0
# bash, grep and wget: KubeRay's probes and its command. libnuma1: vLLM on processors.
# gcc and libc6-dev: Triton compiles what launches its kernels.
# hadolint ignore=DL3008,SC2016
RUN apt-get update \
    && if [ "$BUILD" = gpu ]; then compiler="gcc libc6-dev"; fi \
    && apt-get install --yes --no-install-recommends \
        bash ca-certificates grep libgomp1 libnuma1 wget ${compiler:-} \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home --shell /bin/bash polyvec \
    # A login shell begins with Debian's PATH, and KubeRay may start Ray from one.
    && echo 'PATH=/opt/polyvec/.venv/bin:$PATH' > /etc/profile.d/polyvec.sh
COPY --from=build /opt/polyvec /opt/polyvec
ENV PATH=/opt/polyvec/.venv/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /home/polyvec
EXPOSE 8000 9000
CMD ["polyvec", "--help"]
