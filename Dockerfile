# The server as an image:
#   docker build --target cpu  -t embedkit:cpu .
#   docker build --target cuda -t embedkit:cuda .
#   docker run --rm -p 127.0.0.1:50051:50051 -v "$PWD/models:/models:ro" -v embedkit-var:/var/lib/embedkit embedkit:cpu
# Add --keys-file, --tls-cert and --tls-key (docs/serve.md) before the port is reachable from elsewhere.

FROM python:3.11-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY embedkit ./embedkit
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.11-slim AS cpu
COPY constraints.txt /tmp/constraints.txt
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/*.whl)[serve]"
RUN useradd --create-home --uid 10001 embedkit \
    && install -d -o embedkit -g embedkit /models /var/lib/embedkit
USER embedkit
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["embedkit", "serve", "--models", "/models", "--data-dir", "/var/lib/embedkit", \
    "--bind", "0.0.0.0:50051", "--metrics-bind", "0.0.0.0:9090", "--log-format", "json"]

# onnxruntime-gpu 1.31 is built for CUDA 13 and cuDNN 9; faiss-gpu brings its own CUDA 12 libraries.
FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/embedkit
ENV PATH="/opt/embedkit/bin:$PATH"
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(ls /wheels/*.whl)[gpu]"
RUN useradd --create-home --uid 10001 embedkit \
    && install -d -o embedkit -g embedkit /models /var/lib/embedkit
USER embedkit
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["embedkit", "serve", "--models", "/models", "--data-dir", "/var/lib/embedkit", \
    "--bind", "0.0.0.0:50051", "--metrics-bind", "0.0.0.0:9090", "--log-format", "json", \
    "--provider", "cuda"]
