# CPU. docker build -t titans_seq . && docker run titans_seq        (make train)
#      docker run titans_seq make test
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
# Builds of torch without CUDA, which satisfy the same pins as those of PyPI.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
WORKDIR /titans_seq
COPY . .
RUN make install
CMD ["make", "train"]
