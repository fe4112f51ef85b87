# pgshadow in a container. Configuration: mount a file at /etc/pgshadow/pgshadow.toml, or set PGSHADOW__SECTION__KEY.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p pgshadow --bin pgshadow

FROM debian:bookworm-slim
# curl is for the health check.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/pgshadow --create-home pgshadow
COPY --from=build /src/target/release/pgshadow /usr/local/bin/pgshadow
COPY proxy-config/examples/compose.toml /etc/pgshadow/pgshadow.toml
USER pgshadow
WORKDIR /var/lib/pgshadow
VOLUME /var/lib/pgshadow
EXPOSE 6432 6433
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["curl", "--fail", "--silent", "--show-error", "--output", "/dev/null", "http://127.0.0.1:6433/livez"]
ENTRYPOINT ["pgshadow"]
CMD ["run", "-c", "/etc/pgshadow/pgshadow.toml"]
