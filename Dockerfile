# inandout on a CPU. Follows the section Install of README.md. It was written without being built.
#   docker build -t inandout .
#   docker run --rm -v "$PWD/runs:/runs" inandout classify --shot zero --n-aug 40
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
WORKDIR /opt/inandout
COPY requirements.lock ./
# PyTorch's CPU build has the same version with the suffix +cpu, and needs none of the CUDA packages of the lock.
RUN grep -vE "^(cuda|nvidia|triton)" requirements.lock > cpu.lock \
    && pip install --extra-index-url https://download.pytorch.org/whl/cpu -r cpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY inandout inandout
RUN pip install --no-deps .

# Runs, images and models are written to /runs; mount a folder there to keep them.
RUN useradd --create-home user && mkdir /runs && chown user /runs
USER user
WORKDIR /runs
ENTRYPOINT ["inandout"]
CMD ["--help"]
