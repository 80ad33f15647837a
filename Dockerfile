# docker build -t zstore --build-arg VERSION=0.1.0 . && docker run --rm -v "$PWD/data:/data" zstore zstore info /data/mine.zarr
FROM python:3.11-slim AS build
ARG VERSION=0.1.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.11-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN python -m pip install --no-cache-dir --constraint /wheels/constraints.txt "$(echo /wheels/*.whl)[train,view,s3,hdf5,sql]" \
    && useradd --create-home zstore
USER zstore
WORKDIR /data
CMD ["zstore", "--help"]
