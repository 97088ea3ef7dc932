# An image for WeChat's own cloud (云托管), or for any other host of containers: docs/deploy.md has the way.
FROM python:3.13-slim
WORKDIR /app
COPY requirements.lock ./
# With redis for a store that outlives the container, and cryptography for safe mode; each file has to have its hash.
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY wxserver.py wsgi.py setup.cfg ./
COPY wechat ./wechat
COPY handlers ./handlers
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER nobody
EXPOSE 8080
# A list: a shell would keep SIGTERM from the server, which then ends within WECHAT_DRAIN seconds, 20 unless set. Kubernetes
# gives 30; `docker stop` 10, so it takes `--time 30`.
CMD ["python", "wxserver.py"]
