# One image for the bridge, the API, the simulator and provisioning; docker-compose.yml says which of them a container is.
# The files of npm packages that the page needs, in the locked versions.
FROM node:24.19.0-slim AS page
WORKDIR /page
COPY scripts/page/package.json scripts/page/package-lock.json scripts/page/.npmrc ./
RUN npm ci --ignore-scripts --omit=dev && mkdir vendor \
    && cp node_modules/uplot/dist/uPlot.iife.min.js node_modules/uplot/dist/uPlot.min.css vendor/ \
    && cp node_modules/uplot/LICENSE vendor/uPlot.LICENSE.txt

FROM python:3.13.14-slim

# Only what these four need, each file checked against the lock's hashes.
COPY requirements-service.lock /tmp/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/requirements-service.lock \
    && rm /tmp/requirements-service.lock

WORKDIR /app
COPY bridge bridge
COPY api api
COPY --from=page /page/vendor api/page/vendor
COPY simulator simulator
COPY mosquitto mosquitto
COPY --chmod=755 scripts/with-secrets /usr/local/bin/with-secrets

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
# No account of the host has this id.
USER 10001:10001
ENTRYPOINT ["with-secrets", "python", "-m"]
CMD ["bridge", "run"]
