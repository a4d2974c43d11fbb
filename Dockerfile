# hutter in a container: `docker compose up` builds and runs it between two networks (docker-compose.yml).
# The first stage has the compilers; the second has Node, iptables, ip and what was built. It runs with NET_ADMIN, NET_RAW
# and SYS_NICE alone (the last for the workers' priority; it can be left out), without new privileges, on a read-only root.
ARG NODE_IMAGE=node:20-bookworm-slim

FROM ${NODE_IMAGE} AS build
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ make python3 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The headers are the image's own, so that node-gyp fetches nothing.
ENV npm_config_nodedir=/usr/local
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run -s build:native && npm run -s build:js
RUN npm prune --ignore-scripts --omit=dev --omit=optional && rm -rf node_modules/node-gyp node_modules/.bin

FROM ${NODE_IMAGE}
RUN apt-get update \
  && apt-get install --yes --no-install-recommends iproute2 iptables \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hutter
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/build/Release/hutter.node ./build/Release/hutter.node
COPY --from=build /src/dist/bin ./dist/bin
COPY --from=build /src/examples ./examples
RUN for name in hutter.mjs hutter-iptables.cjs hutter-iptables-save.cjs hutter-iptables-restore.cjs; do \
    ln -s "/opt/hutter/dist/bin/$name" "/usr/local/bin/${name%.*}"; done
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["hutter", "status"]
ENTRYPOINT ["hutter"]
CMD ["up", "--rules", "/opt/hutter/examples/simple-firewall.rules"]
