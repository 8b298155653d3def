# One image for the CPU and for CUDA: the driver is found at run time (docker run --gpus all), nothing of it is in here.
# scripts/lint.sh checks this file; no test builds the image.
#
#     docker build --build-arg COMMIT="$(git rev-parse --short=12 HEAD)" --tag ossnet .
#     docker run --rm --volume "$PWD:/data" ossnet infer -l model.safetensors -i scan.nii.gz -o seg.nii.gz
FROM rust:1.90-slim-bookworm AS build
ARG COMMIT
WORKDIR /source
COPY . .
RUN OSSNET_COMMIT="$COMMIT" cargo build --release --locked

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="ossnet" \
      org.opencontainers.image.description="Memory-efficient 3D medical segmentation, every byte accounted for. Not a medical device." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /source/target/release/ossnet /usr/local/bin/ossnet
COPY --from=build /source/LICENSE /source/LICENSE-APACHE /source/LICENSE-MIT /usr/share/doc/ossnet/
# What the container runtime of a GPU host makes visible.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["ossnet"]
CMD ["--help"]
