# syntax=docker/dockerfile:1
# Targets: `cpu` (the default: it stands last), `cuda` (the same server with CuPy and the
# CUDA toolkit's wheels) and `demo` (cpu plus the demo,
# which `docker run` plays with a server of its own).
#
#   docker build -t nnz . && docker run -p 8000:8000 -e NNZ_API_KEY=change-me -v nnz:/var/lib/nnz nnz

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv --without-pip /opt/nnz
COPY deploy/image/requirements.txt /src/deploy/image/requirements.txt
RUN python3 -m pip --python /opt/nnz/bin/python install --quiet --only-binary :all: --require-hashes \
      -r /src/deploy/image/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY kernels /src/kernels
COPY service /src/service
COPY clients /src/clients
RUN python3 -m pip --python /opt/nnz/bin/python install --quiet --no-deps --no-build-isolation /src/clients/python /src \
 && python3 -m pip --python /opt/nnz/bin/python uninstall --quiet --yes \
      hatchling editables pathspec pluggy trove-classifiers packaging \
 && python3 -m pip --python /opt/nnz/bin/python check \
 && find /opt/nnz -name tests -type d -path '*site-packages*' -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm AS runtime
# The kernels are compiled here, once for each level of x86-64 that numba is asked for at
# start, so that a container answers at once on any of them.
ENV PATH=/opt/nnz/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NNZ_HOME=/var/lib/nnz \
    NNZ_HOST=0.0.0.0 \
    NNZ_CPU_TARGET=portable \
    NUMBA_CACHE_DIR=/opt/nnz-cache
RUN useradd --uid 10001 --home-dir /var/lib/nnz --create-home nnz \
 && install -d -o nnz -g nnz /opt/nnz-cache
COPY --from=build /opt/nnz /opt/nnz
USER nnz
WORKDIR /var/lib/nnz
RUN nnz warm --cpu-target x86-64-v3 && nnz warm --cpu-target x86-64-v4
VOLUME /var/lib/nnz
# HTTP, and gRPC where NNZ_GRPC_PORT=8001 asks for it.
EXPOSE 8000 8001
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["nnz", "health"]
CMD ["nnz", "serve"]

# The image's own pip puts more into the environment; the environment holds none.
FROM runtime AS demo
USER root
COPY deploy/constraints.txt deploy/demo /opt/demo/
RUN PATH=/usr/local/bin:/usr/bin:/bin python3 -m pip --python /opt/nnz/bin/python install \
      --quiet --no-cache-dir --constraint /opt/demo/constraints.txt scikit-learn
USER nnz
CMD ["python", "/opt/demo/demo.py"]

FROM runtime AS cuda
USER root
COPY deploy/image/requirements-cuda.txt /tmp/requirements-cuda.txt
RUN PATH=/usr/local/bin:/usr/bin:/bin python3 -m pip --python /opt/nnz/bin/python install --quiet --no-cache-dir --only-binary :all: --require-hashes \
      -r /tmp/requirements-cuda.txt
ENV CUPY_CACHE_DIR=/var/lib/nnz/cache/cupy \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER nnz

FROM runtime AS cpu
