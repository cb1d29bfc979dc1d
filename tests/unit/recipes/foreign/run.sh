#!/bin/bash
set -euo pipefail
# starts the server
MODEL="acme/Tanager-27B"
docker rm -f tanager
docker run -d --name tanager \
  --gpus all --net=host --shm-size=16g --ipc=host \
  --ulimit memlock=-1 -e HF_TOKEN -e VLLM_USE_DEEP_GEMM=0 \
  -v /models/tanager:/model:ro --device /dev/infiniband --cap-add=IPC_LOCK --restart unless-stopped \
  --entrypoint vllm \
  ghcr.io/acme/vllm-gb10:v0.26.0 \
  serve "$MODEL" --max-model-len 24576 --compilation-config '{"cudagraph_mode": "PIECEWISE"}' > log.txt 2>&1
