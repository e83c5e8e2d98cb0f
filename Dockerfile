# The service only: docker build -t thirtytwo . && docker run --rm -p 127.0.0.1:8032:8032 thirtytwo
# With Ray, for deploy/rayservice.yaml: docker build --build-arg EXTRAS=scale -t thirtytwo-ray .
FROM python:3.13-slim AS build
ARG EXTRAS=serve
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/thirtytwo \
 && /opt/thirtytwo/bin/pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

FROM python:3.13-slim
COPY --from=build /opt/thirtytwo /opt/thirtytwo
# KubeRay starts Ray in a login shell, which resets PATH.
RUN useradd --uid 10032 --no-create-home --shell /usr/sbin/nologin thirtytwo \
 && if [ -e /opt/thirtytwo/bin/ray ]; then ln -s /opt/thirtytwo/bin/ray /usr/local/bin/ray; fi
USER 10032
WORKDIR /tmp
ENV PATH=/opt/thirtytwo/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 THIRTYTWO_SERVE_HOST=0.0.0.0 THIRTYTWO_SERVE_PORT=8032
EXPOSE 8032
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request as request; request.urlopen(f\"http://127.0.0.1:{os.environ['THIRTYTWO_SERVE_PORT']}/health/ready\", timeout=4)"]
ENTRYPOINT ["thirtytwo", "serve"]
