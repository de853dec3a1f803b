# onnx2nn with CPU torch and ONNX Runtime, for files in the current folder:
#
#   docker build -t onnx2nn .
#   docker run --rm -v "$PWD:/models" -u "$(id -u):$(id -g)" onnx2nn model.onnx

FROM python:3.12-slim-bookworm AS build
# The compiler is needed for this stage only; its version is Debian's.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --constraint constraints.txt --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# torch comes from PyTorch's own index: PyPI's build for Linux brings gigabytes of CUDA.
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
      --index-url https://download.pytorch.org/whl/cpu torch
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/wheels/*.whl \
      numpy safetensors onnxruntime onnx rich bokeh jinja2 pygments \
    && rm -rf /tmp/wheels /tmp/constraints.txt
# Caches of torch and others go where any user may write.
ENV HOME=/tmp
WORKDIR /models
USER 1000:1000
ENTRYPOINT ["onnx2nn"]
CMD ["--help"]
